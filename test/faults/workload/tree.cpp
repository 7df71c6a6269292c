#include "test/faults/workload/tree.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace faults {

Tree::~Tree() {
  while (!handles_.empty()) close_handle(handles_.size() - 1);
}

InodePtr Tree::any_directory(std::string& path) {
  InodePtr at = root_;
  for (;;) {
    std::vector<std::pair<std::string, InodePtr>> below;
    for (auto& [name, inode] : at->entries) {
      if (inode->is_directory()) below.emplace_back(name, inode);
    }
    if (below.empty() || random_.one_in(3)) return at;
    auto& [name, inode] = below[random_.below(below.size())];
    path += name + "/";
    at = inode;
  }
}

// Few names, so that the same ones are made and removed again and again.
Place Tree::any_place() {
  Place place;
  place.directory = any_directory(place.path);
  place.name = "n" + std::to_string(random_.below(12));
  place.path += place.name;
  return place;
}

Place Tree::existing_place() {
  Place place = any_place();
  auto& entries = place.directory->entries;
  if (entries.empty() || random_.one_in(8)) return place;
  auto it = entries.begin();
  std::advance(it, random_.below(entries.size()));
  place.path.resize(place.path.size() - place.name.size());
  place.name = it->first;
  place.path += place.name;
  return place;
}

bool Tree::has_room_for_directories() const {
  size_t count = 0;
  std::vector<const Inode*> left{root_.get()};
  while (!left.empty()) {
    const Inode* directory = left.back();
    left.pop_back();
    count++;
    for (auto& [name, inode] : directory->entries) {
      if (inode->is_directory()) left.push_back(inode.get());
    }
  }
  return count < kMostDirectories;
}

Handle* Tree::any_handle() {
  return handles_.empty() ? nullptr : &handles_[random_.below(handles_.size())];
}

void Tree::keep(int fd, InodePtr inode, bool writable, bool append) {
  if (full()) close_handle(random_.below(handles_.size()));
  handles_.push_back({fd, std::move(inode), writable, append});
}

void Tree::close_handle(size_t index) {
  int fd = handles_[index].fd;
  report_.expect(0, report_.call("close(" + std::to_string(fd) + ")", [&] { return close(fd); }));
  handles_.erase(handles_.begin() + static_cast<ptrdiff_t>(index));
}

void Tree::step() {
  struct Weighted {
    unsigned weight;
    void (Tree::*run)();
  };
  static constexpr Weighted kSteps[]{
      {6, &Tree::do_mkdir},   {5, &Tree::do_rmdir},  {10, &Tree::do_create}, {8, &Tree::do_unlink},
      {12, &Tree::do_rename}, {4, &Tree::do_link},   {3, &Tree::do_symlink}, {2, &Tree::do_tmpfile},
      {6, &Tree::do_open},    {20, &Tree::do_write}, {20, &Tree::do_read},   {4, &Tree::do_truncate},
      {2, &Tree::do_punch},   {2, &Tree::do_copy},   {2, &Tree::do_map},     {4, &Tree::do_close},
      {10, &Tree::do_stat},   {8, &Tree::do_xattr},  {3, &Tree::do_list}};
  unsigned total = 0;
  for (auto& step : kSteps) total += step.weight;
  auto pick = static_cast<unsigned>(random_.below(total));
  for (auto& step : kSteps) {
    if (pick < step.weight) return (this->*step.run)();
    pick -= step.weight;
  }
}

void Tree::verify_below(const std::string& path, const Inode& directory) {
  verify_names(path, directory);
  for (auto& [name, inode] : directory.entries) {
    std::string full_path = path + name;
    struct stat st {};
    if (!report_.expect(
            0, report_.call("lstat(" + full_path + ")", [&] { return lstat(full_path.c_str(), &st); })))
      continue;
    verify_stat(st, *inode);
    if (inode->is_directory()) verify_below(full_path + "/", *inode);
  }
}

void Tree::verify_all() {
  verify_below("", *root_);
  for (auto& handle : handles_) verify_data(handle, 0, handle.inode->data.size() + 1);
}

void run_tree(Context& context) {
  if (!context.report.expect(0,
                             context.report.call("chdir", [&] { return chdir(context.directory.c_str()); })))
    return;
  Tree tree(context);
  for (unsigned n = 0; !context.over(); n++) {
    tree.step();
    if (n % 5000 == 4999) tree.verify_all();
  }
  tree.verify_all();
}

}  // namespace faults
