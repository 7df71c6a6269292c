// Names of every length and every byte, and the ways a path may be written (path_resolution(7)).
#include <algorithm>

#include "test/conformance/suite/suite.hpp"

CASE(names, longest) {
  const std::string name(255, 'n');
  for (const Kind kind : all_but({Kind::socket})) {  // a socket's name must fit sockaddr_un
    NOTE("%s", kind_name(kind));
    OK(make(kind, name));
    EQ(names(".").size(), 255u);
    const std::string other(255, 'm');
    OK(rename(name.c_str(), other.c_str()));
    OK(remove_any(other));
  }
}

CASE(names, longest_in_several_bytes_a_character) {
  std::string name;
  for (int i = 0; i < 127; ++i) name += "\xc3\xa9";
  OK(make_file(name, "text"));
  EQ(content(name), "text");
  CHECK(names(".") == name);
  name += "xx";
  FAILS(ENAMETOOLONG, open(name.c_str(), O_CREAT | O_WRONLY, 0644));
}

CASE(names, every_byte) {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/' || byte == '.') continue;
    const std::string name(1, static_cast<char>(byte));
    if (make_file(name, name) != 0 || content(name) != name) NOTE("byte %d is refused", byte);
    all += name;
  }
  std::vector<std::string> found = list(".");
  std::sort(found.begin(), found.end());
  std::string seen;
  for (const std::string& name : found) seen += name;
  std::sort(all.begin(), all.end());
  std::sort(seen.begin(), seen.end());
  CHECK(seen == all);
}

CASE(names, odd_ones) {
  const std::string odd[] = {"new\nline",  "\xff\xfe", "\xed\xa0\x80", "a\\b",    " ",    "-rf",
                             "...",        "..x",      ".x",           "*?[",     "%s%n", "tab\there",
                             "\"quoted\"", "\x7f\x01", "e\xcc\x81",    "\xc3\xa9"};
  for (const std::string& name : odd) {
    OK(make_file(name, name));
    CHECK(content(name) == name);
  }
  EQ(list(".").size(), sizeof odd / sizeof *odd);
  for (const std::string& name : odd) OK(unlink(name.c_str()));
}

CASE(names, upper_and_lower_case_differ) {
  OK(make_file("name", "lower"));
  OK(make_file("NAME", "upper"));
  EQ(content("name") + content("NAME"), "lowerupper");
}

CASE(names, dot_and_dot_dot) {
  OK(mkdir("d", 0755));
  OK(make_file("d/f", "text"));
  for (const char* path : {"./d/f", "d/./f", "d/../d/f", "d//f", ".//d///./f", "d/../d/../d/f"})
    EQ(content(path), "text");
  for (const char* path : {"d/f/.", "d/f/..", "d/f/"}) EQ(content(path), "<ENOTDIR>");
  EQ(content("d/../none/../d/f"), "<ENOENT>");
}

CASE(names, trailing_slashes) {
  OK(mkdir("d", 0755));
  OK(make_file("f"));
  struct stat st {};
  OK(stat("d/", &st));
  OK(stat("d///", &st));
  FAILS(ENOTDIR, stat("f/", &st));
  FAILS(ENOTDIR, access("f/", F_OK));
  FAILS(ENOENT, stat("none/", &st));
  FAILS(ENOTDIR, chmod("f/", 0600));
  FAILS(ENOTDIR, link("f/", "g"));
  FAILS(ENOENT, link("f", "g/"));
  FAILS(ENOENT, mkfifo("fifo/", 0600));
}

CASE(names, path_of_4095_bytes_works) {
  OK(make_file("f", "text"));
  std::string path;
  while (path.size() < 4094) path += "./";
  EQ(path.size(), 4094u);
  EQ(content(path + "f"), "text");
  EQ(content("/" + path + "f"), "<ENAMETOOLONG>");
}

CASE(names, absolute_path_of_4095_bytes_works) {
  OK(make_file("f", "text"));
  std::string path = here();
  while (path.size() + 2 < 4094) path += "/.";
  path += path.size() == 4092 ? "//f" : "/f";
  EQ(path.size(), 4095u);
  EQ(content(path), "text");
}

CASE(names, tree_deeper_than_path_max) {
  const std::string name(250, 'd');
  for (int i = 0; i < 20; ++i) {
    if (mkdir(name.c_str(), 0755) != 0 || chdir(name.c_str()) != 0) break;
  }
  OK(make_file("bottom", "text"));
  EQ(content("bottom"), "text");
  char buffer[8192];
  RECORD(getcwd(buffer, PATH_MAX) ? 0 : -1);
  struct stat st {};
  OK(stat(("../../" + name + "/" + name + "/bottom").c_str(), &st));
}

CASE(names, missing_then_made_then_missing) {
  for (int i = 0; i < 20; ++i) {
    if (access("f", F_OK) == 0) NOTE("found before it was made");
    if (make_file("f") != 0 || access("f", F_OK) != 0) NOTE("not found after it was made");
    if (unlink("f") != 0 || access("f", F_OK) == 0) NOTE("found after it was removed");
  }
  FAILS(ENOENT, access("f", F_OK));
}

CASE(names, another_process_sees_changes_at_once) {
  FAILS(ENOENT, access("f", F_OK));
  in_child([] { OK(make_file("f", "one")); });
  EQ(content("f"), "one");
  in_child([] {
    EQ(content("f"), "one");
    OK(make_file("f", "three"));
  });
  EQ(size("f"), 5);
  in_child([] { OK(rename("f", "g")); });
  FAILS(ENOENT, access("f", F_OK));
  EQ(content("g"), "three");
}

CASE(names, getcwd_and_fchdir) {
  const std::string top = here();
  OK(mkdir("d", 0755));
  OK(mkdir("d/e", 0755));
  const Fd dir = OK(open(".", O_RDONLY)), path = OK(open("d", O_PATH));
  OK(chdir("d/e"));
  CHECK(here() == top + "/d/e");
  OK(fchdir(path));
  CHECK(here() == top + "/d");
  OK(fchdir(dir));
  CHECK(here() == top);
  OK(make_file("f"));
  const Fd file = OK(open("f", O_RDONLY));
  FAILS(ENOTDIR, fchdir(file));
  FAILS(EBADF, fchdir(-1));
  char small[4];
  FAILS(ERANGE, getcwd(small, sizeof small));
}

CASE(names, working_directory_is_inherited) {
  OK(mkdir("d", 0755));
  OK(chdir("d"));
  in_child([] {
    OK(make_file("from-child"));
    OK(chdir(".."));
  });
  EQ(names("."), "from-child");
}

CASE(names, realpath) {
  OK(mkdir("d", 0755));
  OK(make_file("d/f"));
  OK(symlink("d", "link"));
  char buffer[PATH_MAX];
  OK(realpath("link/../link/./f", buffer));
  CHECK(buffer == here() + "/d/f");
  FAILS(ENOENT, realpath("link/none", buffer));
}
