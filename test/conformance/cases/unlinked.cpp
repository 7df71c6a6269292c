// Files and directories in use after their last name is gone.
#include <sys/mman.h>
#include <sys/xattr.h>

#include "test/conformance/suite/suite.hpp"

CASE(unlinked, file_goes_on_working) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(unlink("f"));
  EQ(nlink(static_cast<int>(fd)), 0);
  EQ(content(static_cast<int>(fd)), "text");
  OK(pwrite(fd, "more", 4, 4));
  EQ(content(static_cast<int>(fd)), "textmore");
  EQ(size(static_cast<int>(fd)), 8);
  OK(ftruncate(fd, 100000));
  EQ(size(static_cast<int>(fd)), 100000);
  OK(fsync(fd));
}

CASE(unlinked, attributes_can_be_changed) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(unlink("f"));
  OK(fchmod(fd, 0600));
  EQ(mode(static_cast<int>(fd)), "0600");
  const timespec times[2] = {{100, 5}, {200, 7}};
  OK(futimens(fd, times));
  EQ(text_of(stamps(static_cast<int>(fd)).mtime), "200.000000007");
  OK(fchown(fd, getuid(), getgid()));
}

CASE(unlinked, xattrs_can_be_changed) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(unlink("f"));
  if (fsetxattr(fd, "user.a", "value", 5, 0) != 0 && errno == EOPNOTSUPP) SKIP("no user xattrs");
  char buffer[16];
  EQ(OK(fgetxattr(fd, "user.a", buffer, sizeof buffer)), 5);
}

CASE(unlinked, name_used_again_is_another_file) {
  OK(make_file("f", "old"));
  const Fd fd = OK(open("f", O_RDWR));
  struct stat before {
  }, after{};
  OK(fstat(fd, &before));
  OK(unlink("f"));
  OK(make_file("f", "new"));
  OK(stat("f", &after));
  CHECK(before.st_ino != after.st_ino);
  EQ(content(static_cast<int>(fd)), "old");
  OK(pwrite(fd, "OLD", 3, 0));
  EQ(content("f"), "new");
}

CASE(unlinked, two_descriptors_share_it) {
  OK(make_file("f", "text"));
  const Fd a = OK(open("f", O_RDWR));
  const Fd b = OK(open("f", O_RDONLY));
  OK(unlink("f"));
  OK(pwrite(a, "next", 4, 0));
  EQ(content(static_cast<int>(b)), "next");
}

CASE(unlinked, survives_in_a_child) {
  OK(make_file("f", "text"));
  const Fd fd = OK(open("f", O_RDWR));
  OK(unlink("f"));
  in_child([&] {
    EQ(content(static_cast<int>(fd)), "text");
    OK(pwrite(fd, "T", 1, 0));
  });
  EQ(content(static_cast<int>(fd)), "Text");
}

CASE(unlinked, mapping_outlives_descriptor_and_name) {
  OK(make_file("f", pattern(8192)));
  void* map = nullptr;
  {
    const Fd fd = OK(open("f", O_RDWR));
    map = OK(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  }
  OK(unlink("f"));
  CHECK(std::string(static_cast<char*>(map), 8192) == pattern(8192));
  std::memcpy(map, "written", 7);
  OK(msync(map, 8192, MS_SYNC));
  CHECK(std::memcmp(map, "written", 7) == 0);
  OK(munmap(map, 8192));
}

CASE(unlinked, many) {
  std::vector<Fd> fds;
  for (int i = 0; i < 200; ++i) {
    const std::string name = "f" + std::to_string(i);
    if (make_file(name, name) != 0) break;
    fds.emplace_back(open(name.c_str(), O_RDWR));
    if (unlink(name.c_str()) != 0) break;
  }
  EQ(fds.size(), 200u);
  EQ(names("."), "");
  std::string wrong;
  for (int i = 0; i < 200; ++i) {
    if (content(static_cast<int>(fds[i])) != "f" + std::to_string(i)) wrong += std::to_string(i) + " ";
  }
  EQ(wrong, "");
}

CASE(unlinked, in_a_directory_that_goes_too) {
  OK(mkdir("d", 0755));
  OK(make_file("d/f", "text"));
  const Fd fd = OK(open("d/f", O_RDWR));
  OK(unlink("d/f"));
  OK(rmdir("d"));
  OK(pwrite(fd, "next", 4, 0));
  EQ(content(static_cast<int>(fd)), "next");
}

CASE(unlinked, last_of_several_names) {
  OK(make_file("a", "text"));
  OK(link("a", "b"));
  const Fd fd = OK(open("a", O_RDWR));
  OK(unlink("a"));
  EQ(nlink(static_cast<int>(fd)), 1);
  OK(unlink("b"));
  EQ(nlink(static_cast<int>(fd)), 0);
  EQ(content(static_cast<int>(fd)), "text");
}

CASE(unlinked, stamps_of_the_file) {
  OK(make_file("f"));
  const Fd fd = OK(open("f", O_RDONLY));
  const Stamps before = stamps(static_cast<int>(fd));
  tick();
  OK(unlink("f"));
  CHECK(stamps(static_cast<int>(fd)).ctime > before.ctime);
}

CASE(unlinked, current_directory) {
  OK(mkdir("d", 0755));
  OK(chdir("d"));
  OK(rmdir("../d"));
  char buffer[PATH_MAX];
  FAILS(ENOENT, getcwd(buffer, sizeof buffer));
  FAILS(ENOENT, open("f", O_CREAT | O_WRONLY, 0644));
  FAILS(ENOENT, access("f", F_OK));
  FAILS(ENOENT, link("../f", "f"));
  FAILS(ENOENT, rename("../f", "f"));
  struct stat st {};
  OK(stat(".", &st));
  EQ(static_cast<long>(st.st_nlink), 0);
  OK(chdir(".."));
  EQ(names("."), "");
}

CASE(unlinked, open_directory_reads_as_empty) {
  OK(mkdir("d", 0755));
  DIR* dir = OK(opendir("d"));
  OK(rmdir("d"));
  int found = 0;
  while (const dirent* entry = readdir(dir))
    found += std::strcmp(entry->d_name, ".") && std::strcmp(entry->d_name, "..");
  EQ(found, 0);
  OK(closedir(dir));
}

CASE(unlinked, directory_replaced_by_rename) {
  OK(mkdir("a", 0755));
  OK(mkdir("b", 0755));
  const Fd b = OK(open("b", O_RDONLY | O_DIRECTORY));
  OK(rename("a", "b"));
  EQ(nlink(static_cast<int>(b)), 0);
  FAILS(ENOENT, openat(b, "f", O_CREAT | O_WRONLY, 0644));
}
