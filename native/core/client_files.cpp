// Open files of fast-path clients: found, closed, and given to the kernel (promotion).
#include <fcntl.h>

#include <algorithm>

#include "native/core/dispatcher.hpp"

namespace poly {

bool Dispatcher::client_file(uint64_t client, uint32_t handle, ClientFile& out) {
  if (handle < files_.kFirst || handle >= PoolMemory::kOpens || client == 0) return false;
  std::lock_guard guard(files_.stripe(handle));
  const uint64_t id = files_.id(handle);
  if (!files_.index_of(id)) return false;
  const OpenRecord& record = files_.record(handle);
  if (record.client.load(std::memory_order_acquire) != client) return false;
  out = {id, record.node, record.instance.load(std::memory_order_relaxed),
         record.flags.load(std::memory_order_relaxed), record.directory != 0};
  return true;
}

int Dispatcher::close_client_file(Instance& instance, const ClientFile& file) {
  int said = 0;
  if (!file.directory) {
    Ref<File> open;  // of before a restart, it may have lost something
    if (this->file(instance, file.id, open) == 0)
      said = sync(
          instance, file.id, [](Libservice& l, File& f) { return l.flush(f); }, *open);
  }
  unregister_file(file.instance, file.id);
  return said;
}

size_t Dispatcher::close_client(uint64_t client) {
  size_t closed = 0;
  files_.for_each_live([&](uint32_t index, OpenRecord&) {
    ClientFile file;
    if (!client_file(client, index, file)) return;
    unregister_file(file.instance, file.id);
    closed++;
  });
  return closed;
}

uint32_t Dispatcher::count_client_files(uint64_t client) {
  uint32_t count = 0;
  files_.for_each_live([&](uint32_t, OpenRecord& record) {
    count += client != 0 && record.client.load(std::memory_order_relaxed) == client;
  });
  return count;
}

std::vector<uint64_t> Dispatcher::clients_with_files() {
  std::vector<uint64_t> clients;
  files_.for_each_live([&](uint32_t, OpenRecord& record) {
    if (uint64_t client = record.client.load(std::memory_order_relaxed)) clients.push_back(client);
  });
  std::ranges::sort(clients);
  clients.erase(std::ranges::unique(clients).begin(), clients.end());
  return clients;
}

// One store makes the file the kernel's. A predecessor that died around it has left which file it was about
// to give, so that the repeated request is answered the same.
int Dispatcher::promote(Instance& instance, uint32_t client_tag, Request& request, Reply& reply) {
  auto index = static_cast<uint32_t>(request.file);
  if (index < files_.kFirst || index >= PoolMemory::kOpens) return -ENOENT;
  ReplayRecord* replay = request.replay;
  const bool resent = request.resent && replay && replay->phase.load(std::memory_order_acquire) == kChecked;
  uint64_t id, client;
  {
    std::lock_guard guard(files_.stripe(index));
    id = files_.id(index);
    if (!files_.index_of(id) || files_.record(index).instance != instance.id) return -ENOENT;
    const OpenRecord& record = files_.record(index);
    client = record.client.load(std::memory_order_relaxed);
    const bool given = resent && client == 0 && replay->offset == id;
    if (!given && (client == 0 || poly::client_tag(client) != client_tag || record.directory)) return -ENOENT;
    // The kernel's descriptor must not be able to do more: it reads from its own cache without asking us.
    if ((record.flags.load(std::memory_order_relaxed) ^ request.flags) & O_ACCMODE) return -EACCES;
    request.node = record.node;
  }
  Ref<Node> n;
  if (int err = node(instance, request.node, n)) return err;
  if (int err = instance.libservice().getattr(*n, nullptr, reply.entry.attr)) return err;
  if (replay) {
    replay->offset = id;
    replay->phase.store(kChecked, std::memory_order_release);
  }
  {
    std::lock_guard guard(files_.stripe(index));
    OpenRecord& record = files_.record(index);
    if (!files_.index_of(id) || record.client.load(std::memory_order_relaxed) != client)
      return -ENOENT;  // closed or given by its client meanwhile
    record.spare_descriptor.store(1, std::memory_order_relaxed);
    record.client.store(0, std::memory_order_release);
  }
  reply.stale = observe(instance, *n, reply.entry.attr);
  reply.entry.node = request.node;
  reply.file = id;
  return 0;
}

bool Dispatcher::closes_spare_descriptor(uint64_t file, uint64_t request) {
  const auto index = static_cast<uint32_t>(file);
  if (index < files_.kFirst || index >= PoolMemory::kOpens) return false;
  std::lock_guard guard(files_.stripe(index));
  if (!files_.index_of(file)) return false;
  // FUSE's numbers are even, and 2 is INIT's.
  const uint32_t mark = std::max(static_cast<uint32_t>(request) | 1, 3u);
  uint32_t spare = 1;
  return files_.record(index).spare_descriptor.compare_exchange_strong(spare, mark) || spare == mark;
}

int Dispatcher::promote_by_lookup(Instance& instance, uint32_t client_tag, Request& request, Reply& reply) {
  auto index = static_cast<uint32_t>(request.file);
  if (index < files_.kFirst || index >= PoolMemory::kOpens) return -ENOENT;
  uint64_t id = 0;
  {
    std::lock_guard guard(files_.stripe(index));
    OpenRecord& record = files_.record(index);
    const uint64_t client = record.client.load(std::memory_order_relaxed);
    if (!files_.index_of(files_.id(index)) || record.instance != instance.id || record.directory ||
        client == 0 || poly::client_tag(client) != client_tag)
      return -ENOENT;
    id = record.node;
  }
  Entry entry;
  if (int err = node(instance, id, entry.node)) return err;
  if (int err = instance.libservice().getattr(*entry.node, nullptr, entry.attr)) return err;
  return answer(instance, request, entry, reply.entry);
}

}  // namespace poly
