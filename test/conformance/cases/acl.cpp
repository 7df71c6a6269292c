// POSIX access control lists (acl(5)), set through their extended attributes in the kernel's own encoding, so
// that the suite needs no library. Skipped where the reference has none.
#include <endian.h>
#include <sys/xattr.h>

#include "test/conformance/suite/suite.hpp"

namespace {

// linux/posix_acl_xattr.h: a version, then entries of tag, permissions, id, all little-endian.
enum Tag : std::uint16_t { kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32 };

struct Entry {
  Tag tag;
  unsigned permissions;
  std::uint32_t id = 0xffffffff;
};
using Acl = std::vector<Entry>;

constexpr const char* kAccess = "system.posix_acl_access";
constexpr const char* kDefault = "system.posix_acl_default";

template <typename T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string encode(const Acl& acl) {
  std::string bytes;
  put(bytes, htole32(2));
  for (const Entry& entry : acl) {
    put(bytes, htole16(entry.tag));
    put(bytes, htole16(static_cast<std::uint16_t>(entry.permissions)));
    put(bytes, htole32(entry.id));
  }
  return bytes;
}

int set(const char* path, const char* name, const Acl& acl) {
  const std::string bytes = encode(acl);
  const int result = setxattr(path, name, bytes.data(), bytes.size(), 0);
  if (result != 0 && errno == EOPNOTSUPP) SKIP("no POSIX ACLs");
  return result;
}

// "u::7 u:65534:6 g::5 m::7 o::4", or the error.
std::string get(const char* path, const char* name) {
  char bytes[4096];
  const ssize_t n = getxattr(path, name, bytes, sizeof bytes);
  if (n < 0) return "<" + error_name(errno) + ">";
  std::string text;
  for (ssize_t at = 4; at + 8 <= n; at += 8) {
    std::uint16_t tag, permissions;
    std::uint32_t id;
    std::memcpy(&tag, bytes + at, 2);
    std::memcpy(&permissions, bytes + at + 2, 2);
    std::memcpy(&id, bytes + at + 4, 4);
    const char letter = tag & (kUserObj | kUser)     ? 'u'
                        : tag & (kGroupObj | kGroup) ? 'g'
                        : tag == kMask               ? 'm'
                                                     : 'o';
    const bool named = tag == kUser || tag == kGroup;
    text += (text.empty() ? "" : " ") + std::string(1, letter) + ":" +
            (named ? std::to_string(le32toh(id)) : "") + ":" + std::to_string(le16toh(permissions));
  }
  return text;
}

const Acl kAliceReads = {{kUserObj, 6}, {kUser, 4, 65534}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}};

}  // namespace

CASE(acl, set_and_get) {
  OK(make_file("f", "text", 0640));
  EQ(get("f", kAccess), "<ENODATA>");
  OK(set("f", kAccess, kAliceReads));
  EQ(get("f", kAccess), "u::6 u:65534:4 g::0 m::7 o::0");
  OK(removexattr("f", kAccess));
  EQ(get("f", kAccess), "<ENODATA>");
}

// acl(5): with a mask entry, the mode's group bits are the mask.
CASE(acl, mode_shows_the_mask) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, kAliceReads));
  EQ(mode("f"), "0670");
  OK(chmod("f", 0640));
  EQ(get("f", kAccess), "u::6 u:65534:4 g::0 m::4 o::0");
  OK(chmod("f", 0705));
  EQ(get("f", kAccess), "u::7 u:65534:4 g::0 m::0 o::5");
}

CASE(acl, minimal_acl_is_only_a_mode) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 1}}));
  EQ(mode("f"), "0751");
  EQ(get("f", kAccess), "<ENODATA>");
}

CASE(acl, removing_keeps_the_mode) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 4, 65534}, {kGroupObj, 4}, {kMask, 6}, {kOther, 0}}));
  EQ(mode("f"), "0660");
  OK(removexattr("f", kAccess));
  RECORD(std::stoi(mode("f"), nullptr, 8));
}

CASE(acl, named_user, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, kAliceReads));
  as(kAlice, [] {
    EQ(content("f"), "text");
    FAILS(EACCES, open("f", O_WRONLY));
    OK(access("f", R_OK));
    FAILS(EACCES, access("f", W_OK));
  });
  as(kBob, [] { FAILS(EACCES, open("f", O_RDONLY)); });
}

CASE(acl, named_user_can_be_denied, .root = true) {
  OK(make_file("f", "text", 0644));
  OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 0, 65534}, {kGroupObj, 4}, {kMask, 4}, {kOther, 4}}));
  as(kAlice, [] { FAILS(EACCES, open("f", O_RDONLY)); });
  as(kBob, [] { EQ(content("f"), "text"); });
}

CASE(acl, named_group, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, {{kUserObj, 6}, {kGroupObj, 0}, {kGroup, 6, 65000}, {kMask, 6}, {kOther, 0}}));
  as({65534, 65534, {65000}}, [] { const Fd fd = OK(open("f", O_RDWR)); });
  as({65534, 65000}, [] { const Fd fd = OK(open("f", O_RDWR)); });
  as(kAlice, [] { FAILS(EACCES, open("f", O_RDONLY)); });
}

// Of several matching groups one that allows everything asked is enough; a match shuts out the others' bits.
CASE(acl, several_groups, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess,
         {{kUserObj, 6}, {kGroupObj, 0}, {kGroup, 4, 65000}, {kGroup, 2, 65001}, {kMask, 6}, {kOther, 7}}));
  as({65534, 65534, {65000, 65001}}, [] {
    const Fd reader = OK(open("f", O_RDONLY)), writer = OK(open("f", O_WRONLY));
    FAILS(EACCES, open("f", O_RDWR));
  });
  as({65534, 65534, {65000}}, [] { FAILS(EACCES, open("f", O_WRONLY)); });
  as(kAlice, [] { const Fd fd = OK(open("f", O_RDWR)); });
}

CASE(acl, mask_limits_users_and_groups, .root = true) {
  OK(make_file("f", "text", 0600));
  OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 6, 65534}, {kGroupObj, 6}, {kMask, 4}, {kOther, 0}}));
  as(kAlice, [] {
    EQ(content("f"), "text");
    FAILS(EACCES, open("f", O_WRONLY));
  });
  OK(chmod("f", 0600));
  as(kAlice, [] { FAILS(EACCES, open("f", O_RDONLY)); });
}

CASE(acl, searching_a_directory, .root = true) {
  OK(make_dir("d", 0700));
  OK(make_file("d/f", "text", 0644));
  as(kAlice, [] { EQ(content("d/f"), "<EACCES>"); });
  OK(set("d", kAccess, {{kUserObj, 7}, {kUser, 1, 65534}, {kGroupObj, 0}, {kMask, 1}, {kOther, 0}}));
  as(kAlice, [] {
    EQ(content("d/f"), "text");
    FAILS(EACCES, opendir("d"));
  });
  as(kBob, [] { EQ(content("d/f"), "<EACCES>"); });
  OK(removexattr("d", kAccess));
  OK(chmod("d", 0700));
  as(kAlice, [] { EQ(content("d/f"), "<EACCES>"); });
}

CASE(acl, creating_in_a_directory, .root = true) {
  OK(make_dir("d", 0700));
  OK(set("d", kAccess, {{kUserObj, 7}, {kUser, 7, 65534}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  as(kAlice, [] {
    OK(make_file("d/f", "text"));
    OK(rename("d/f", "d/g"));
    OK(unlink("d/g"));
  });
}

CASE(acl, default_is_inherited_by_files) {
  OK(make_dir("d", 0755));
  OK(set("d", kDefault, {{kUserObj, 7}, {kUser, 7, 65534}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}}));
  EQ(mode("d"), "0755");
  const Fd fd = OK(open("d/f", O_CREAT | O_WRONLY, 0666));
  EQ(mode("d/f"), "0660");
  EQ(get("d/f", kAccess), "u::6 u:65534:7 g::5 m::6 o::0");
  EQ(get("d/f", kDefault), "<ENODATA>");
}

CASE(acl, default_is_inherited_by_directories) {
  OK(make_dir("d", 0755));
  OK(set("d", kDefault, {{kUserObj, 7}, {kUser, 6, 65534}, {kGroupObj, 5}, {kMask, 7}, {kOther, 1}}));
  OK(mkdir("d/e", 0750));
  EQ(mode("d/e"), "0750");
  EQ(get("d/e", kAccess), "u::7 u:65534:6 g::5 m::5 o::0");
  EQ(get("d/e", kDefault), "u::7 u:65534:6 g::5 m::7 o::1");
  OK(mkdir("d/e/deeper", 0777));
  EQ(get("d/e/deeper", kDefault), "u::7 u:65534:6 g::5 m::7 o::1");
}

CASE(acl, default_is_inherited_by_special_files) {
  OK(make_dir("d", 0755));
  OK(set("d", kDefault, {{kUserObj, 7}, {kUser, 7, 65534}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}}));
  OK(mkfifo("d/fifo", 0664));
  EQ(mode("d/fifo"), "0660");
  EQ(get("d/fifo", kAccess), "u::6 u:65534:7 g::5 m::6 o::0");
  OK(symlink("x", "d/link"));
  EQ(mode("d/link"), "0777");
}

// acl(5): where there is a default ACL, the umask has no say.
CASE(acl, default_replaces_the_umask) {
  OK(make_dir("d", 0755));
  OK(set("d", kDefault, {{kUserObj, 7}, {kGroupObj, 7}, {kOther, 7}}));
  umask(077);
  const Fd fd = OK(open("d/f", O_CREAT | O_WRONLY, 0666));
  EQ(mode("d/f"), "0666");
  OK(mkdir("d/e", 0777));
  EQ(mode("d/e"), "0777");
  umask(0);
  OK(set("d", kDefault, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 0}}));
  const Fd other = OK(open("d/g", O_CREAT | O_WRONLY, 0666));
  EQ(mode("d/g"), "0640");
}

CASE(acl, umask_without_default) {
  OK(make_dir("d", 0755));
  OK(set("d", kAccess, {{kUserObj, 7}, {kUser, 7, 65534}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}}));
  umask(027);
  const Fd fd = OK(open("d/f", O_CREAT | O_WRONLY, 0666));
  EQ(mode("d/f"), "0640");
  EQ(get("d/f", kAccess), "<ENODATA>");
}

CASE(acl, default_grants_access_to_new_files, .root = true) {
  OK(make_dir("d", 0755));
  OK(set("d", kDefault, {{kUserObj, 7}, {kUser, 4, 65534}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  OK(make_file("d/f", "text", 0640));
  as(kAlice, [] { EQ(content("d/f"), "text"); });
  as(kBob, [] { EQ(content("d/f"), "<EACCES>"); });
}

CASE(acl, default_is_for_directories_only) {
  OK(make_file("f"));
  OK(make_dir("d"));
  OK(set("d", kDefault, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 0}}));
  FAILS(EACCES, set("f", kDefault, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 0}}));
  OK(removexattr("d", kDefault));
  EQ(get("d", kDefault), "<ENODATA>");
  OK(make_file("d/f"));
  EQ(get("d/f", kAccess), "<ENODATA>");
}

CASE(acl, malformed) {
  OK(make_file("f", "text", 0640));
  OK(set("f", kAccess, kAliceReads));
  FAILS(EINVAL, set("f", kAccess, {{kUserObj, 6}, {kOther, 0}}));
  FAILS(EINVAL, set("f", kAccess, {{kUserObj, 6}, {kUser, 6, 65534}, {kGroupObj, 0}, {kOther, 0}}));
  FAILS(EINVAL, set("f", kAccess, {{kGroupObj, 6}, {kUserObj, 6}, {kOther, 0}}));
  FAILS(EINVAL, set("f", kAccess, {{kUserObj, 077}, {kGroupObj, 0}, {kOther, 0}}));
  FAILS(EOPNOTSUPP, setxattr("f", kAccess, "\x09\0\0\0", 4, 0));
  FAILS(EINVAL, setxattr("f", kAccess, "\x02\0\0\0\x01", 5, 0));
  EQ(get("f", kAccess), "u::6 u:65534:4 g::0 m::7 o::0");
}

CASE(acl, only_the_owner_sets, .root = true) {
  OK(make_file("f", "text", 0666));
  OK(set("f", kAccess, kAliceReads));
  as(kAlice, [] {
    FAILS(EPERM, set("f", kAccess, {{kUserObj, 7}, {kGroupObj, 7}, {kOther, 7}}));
    FAILS(EPERM, removexattr("f", kAccess));
    EQ(get("f", kAccess), "u::6 u:65534:4 g::0 m::7 o::0");
  });
  OK(chown("f", kAlice.uid, kAlice.gid));
  as(kAlice, [] { OK(set("f", kAccess, {{kUserObj, 7}, {kGroupObj, 7}, {kOther, 7}})); });
  EQ(mode("f"), "0777");
}

CASE(acl, setting_clears_setgid_for_strangers_to_the_group, .root = true) {
  OK(make_file("f", "text", 02755));
  OK(chown("f", 65534, 65000));
  OK(chmod("f", 02755));
  as({65534, 65534}, [] {
    OK(set("f", kAccess, {{kUserObj, 7}, {kUser, 4, 65533}, {kGroupObj, 5}, {kMask, 5}, {kOther, 5}}));
  });
  EQ(mode("f"), "0755");
}

CASE(acl, stamps) {
  OK(make_file("f", "text", 0640));
  OK(set("f", kAccess, kAliceReads));
  EQ(moved(
         {"f"},
         [] {
           OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 6, 65534}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
         }),
     "f:c");
}

CASE(acl, survives_rename_and_link) {
  OK(make_file("f", "text", 0640));
  OK(set("f", kAccess, kAliceReads));
  OK(link("f", "g"));
  OK(rename("f", "h"));
  EQ(get("g", kAccess), get("h", kAccess));
  EQ(get("h", kAccess), "u::6 u:65534:4 g::0 m::7 o::0");
}

CASE(acl, symlinks_have_none) {
  OK(make_file("f"));
  OK(set("f", kAccess, kAliceReads));
  OK(symlink("f", "link"));
  EQ(get("link", kAccess), "u::6 u:65534:4 g::0 m::7 o::0");
  const std::string bytes = encode(kAliceReads);
  FAILS(EOPNOTSUPP, lsetxattr("link", kAccess, bytes.data(), bytes.size(), 0));
}
