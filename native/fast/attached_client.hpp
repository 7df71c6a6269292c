// A client of the fast path as the transport sees it: its request memory and its uid's queues. When the
// client's credentials change it becomes another AttachedClient over the same FastClient.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "fastpath/wire.hpp"
#include "native/fast/client.hpp"
#include "native/fast/uid_queues.hpp"

namespace poly {

class AttachedClient {
 public:
  AttachedClient() = default;
  ~AttachedClient();
  AttachedClient(const AttachedClient&) = delete;
  AttachedClient& operator=(const AttachedClient&) = delete;

  // Checks and maps request memory that a stranger made: a memfd whose size is sealed, of ordinary pages, as
  // a later change of size would be SIGBUS here. -EINVAL for anything else.
  [[nodiscard]] int map(int memfd, uint32_t buffers);

  std::shared_ptr<FastClient> fast;
  std::shared_ptr<UidQueues> queues;
  uint32_t id = 0;  // index | generation << 16
  pid_t pid = 0;
  RequestBuffer* memory = nullptr;
  uint32_t buffers = 0;
  // Buffers that a thread held up in a backend may still write into after their call was answered
  // (servers.cpp): nothing is served from them until it is back, nor the call that was being made then.
  enum Aside : uint8_t { kServed = 0, kHeldUp = 1, kBack = 2 };
  std::array<std::atomic<uint8_t>, kMaxBuffers> aside{};
};

}  // namespace poly
