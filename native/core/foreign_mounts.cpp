#include "native/core/foreign_mounts.hpp"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <unordered_map>

#include "fastpath/fd.hpp"

namespace poly {
namespace {

std::string_view next_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

// The whole of `text` is the number.
bool parse_number(std::string_view text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

bool parse_device(std::string_view text, uint64_t& out) {
  const size_t colon = text.find(':');
  uint64_t high = 0, low = 0;
  if (colon == std::string_view::npos || !parse_number(text.substr(0, colon), high) ||
      !parse_number(text.substr(colon + 1), low))
    return false;
  out = makedev(static_cast<unsigned>(high), static_cast<unsigned>(low));
  return true;
}

bool is_octal(std::string_view text) {
  return text.size() == 3 && text[0] >= '0' && text[0] <= '3' && text[1] >= '0' && text[1] <= '7' &&
         text[2] >= '0' && text[2] <= '7';
}

// seq_path() writes blanks and backslashes as a backslash and three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i++) {
    const std::string_view digits = text.substr(i + 1, 3);
    if (text[i] != '\\' || !is_octal(digits)) {
      out += text[i];
      continue;
    }
    out += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += 3;
  }
  return out;
}

bool parse_line(std::string_view line, MountLine& out) {
  if (!parse_number(next_word(line), out.id) || !parse_number(next_word(line), out.parent) ||
      !parse_device(next_word(line), out.device))
    return false;
  next_word(line);  // the root within the filesystem
  out.path = unescape(next_word(line));
  return out.path.starts_with('/');
}

using Entries = std::map<std::string, MountEntry, std::less<>>;

int entries_of(const MountTable& table, Entries& out) {
  return table.for_each([&](std::string_view path, const MountEntry& entry) { out.emplace(path, entry); });
}

// Services are numbered from 1: what has none stands for a foreign mount.
bool is_foreign(const MountEntry& entry) {
  return (entry.flags & kMountKernel) != 0 && entry.service == 0;
}

std::set<std::string> find_foreign(const std::vector<MountLine>& lines, const Entries& entries) {
  std::unordered_map<uint64_t, const MountLine*> by_id;
  for (const MountLine& line : lines) by_id[line.id] = &line;
  const auto is_ours = [&](const MountLine& line) {
    const auto it = entries.find(line.path);
    return it != entries.end() && !is_foreign(it->second) && it->second.mount_id == line.id &&
           it->second.device == line.device;
  };
  // Whether a mount of ours is the mount of this id or one that it stands on, directly or not.
  std::unordered_map<uint64_t, bool> known;
  const auto stands_on_ours = [&](uint64_t id) {
    std::vector<uint64_t> way;
    bool answer = false;
    for (;;) {
      const auto line = by_id.find(id);
      if (line == by_id.end() || way.size() > lines.size()) break;  // the root's parent is not listed
      if (const auto it = known.find(id); it != known.end()) {
        answer = it->second;
        break;
      }
      way.push_back(id);
      answer = is_ours(*line->second);
      if (answer || line->second->parent == id) break;
      id = line->second->parent;
    }
    for (const uint64_t passed : way) known[passed] = answer;
    return answer;
  };
  std::set<std::string> found;
  for (const MountLine& line : lines) {
    if (is_ours(line) || !stands_on_ours(line.parent)) continue;
    const auto it = entries.find(line.path);
    if (it == entries.end() || is_foreign(it->second)) found.insert(line.path);
  }
  return found;
}

// The entry of ours that `path` lies below, by the longest prefix.
Entries::iterator enclosing(Entries& entries, std::string path) {
  while (path.size() > 1) {
    path.resize(std::max<size_t>(path.rfind('/'), 1));
    const auto it = entries.find(path);
    if (it != entries.end() && !is_foreign(it->second)) return it;
  }
  return entries.end();
}

int remove_stale(MountTable& table, const Entries& entries, const std::set<std::string>& wanted) {
  for (const auto& [path, entry] : entries) {
    NormalPath normal;
    if (!is_foreign(entry) || wanted.contains(path) || normalise(path, normal) != 0) continue;
    if (int err = table.remove(normal)) return err;
  }
  return 0;
}

}  // namespace

std::vector<MountLine> parse_mountinfo(std::string_view text) {
  std::vector<MountLine> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    MountLine line;
    if (parse_line(text.substr(0, end), line)) lines.push_back(std::move(line));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

int follow_mounts(MountTable& table, std::string_view mountinfo, ForeignMounts& out) {
  Entries entries;
  if (int err = entries_of(table, entries)) return err;
  const std::set<std::string> wanted = find_foreign(parse_mountinfo(mountinfo), entries);
  if (int err = remove_stale(table, entries, wanted)) return err;
  out = {};
  std::set<std::string> hidden;
  for (const std::string& path : wanted) {
    NormalPath normal;
    int err = normalise(path, normal);
    if (!err && !entries.contains(path)) err = table.insert(normal, {.flags = kMountKernel});
    if (!err) {
      out.entries++;
      continue;
    }
    // No room: rather nothing of the mount around it by the fast path than a wrong file.
    if (const auto it = enclosing(entries, path); it != entries.end()) hidden.insert(it->first);
  }
  out.hidden = hidden.size();
  for (auto& [path, entry] : entries) {
    NormalPath normal;
    const uint32_t flags = (entry.flags & ~kMountKernel) | (hidden.contains(path) ? kMountKernel : 0);
    if (is_foreign(entry) || flags == entry.flags || normalise(path, normal) != 0) continue;
    entry.flags = flags;
    if (int err = table.update(normal, entry)) return err;
  }
  return table.touch();
}

int read_mountinfo(std::string& out) {
  const Fd fd(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!fd) return -errno;
  out.clear();
  char chunk[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n == 0) return 0;
    if (n > 0) out.append(chunk, static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) return -errno;
  }
}

}  // namespace poly
