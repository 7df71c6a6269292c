// Several processes append records to one file through O_APPEND: at the end every record is there once,
// whole, and each process's own in order.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <map>

#include "test/faults/workload/areas.hpp"

namespace faults {
namespace {

std::string log_path(const Context& context) {
  return context.common + "/log";
}

// "<process> <sequence> <filler> <sum>\n"; the filler has no spaces.
std::string record(unsigned process, uint64_t sequence, Random& random) {
  std::string text = std::to_string(process) + " " + std::to_string(sequence) + " ";
  size_t filler = 1 + random.below(random.one_in(20) ? 20'000 : 400);
  for (size_t i = 0; i < filler; i++) text += static_cast<char>('a' + random.below(26));
  unsigned sum = 0;
  for (char c : text) sum = sum * 31 + static_cast<unsigned char>(c);
  return text + " " + std::to_string(sum) + "\n";
}

bool is_whole(const std::string& line, unsigned& process, uint64_t& sequence) {
  size_t last = line.rfind(' ');
  if (last == std::string::npos) return false;
  unsigned sum = 0;
  for (size_t i = 0; i < last; i++) sum = sum * 31 + static_cast<unsigned char>(line[i]);
  return std::to_string(sum) == line.substr(last + 1) &&
         sscanf(line.c_str(), "%u %lu ", &process, &sequence) == 2;
}

}  // namespace

void run_append(Context& context) {
  Reporter& report = context.report;
  int fd = -1;
  int got = report.call("open(log, O_APPEND)", [&] {
    return fd = open(log_path(context).c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  });
  if (!report.expect(0, got)) return;
  std::atomic<uint64_t>& written = context.shared[context.index];
  while (!context.over()) {
    std::string text = record(context.index, written.load(), context.random);
    ssize_t n = -1;
    got = report.call("append record " + std::to_string(written.load()),
                      [&] { return n = write(fd, text.data(), text.size()); });
    if (!report.expect(0, got)) break;
    if (!report.expect_that(n == static_cast<ssize_t>(text.size()), "wrote only " + std::to_string(n))) break;
    written.fetch_add(1);
    if (context.random.one_in(4)) sleep_ms(context.random.below(20));
  }
  close(fd);
}

void verify_append(Context& context) {
  FILE* file = fopen(log_path(context).c_str(), "r");
  if (!context.report.expect_that(file != nullptr, "the log is gone")) return;
  std::map<unsigned, uint64_t> next;
  char* text = nullptr;
  size_t room = 0;
  uint64_t lines = 0;
  for (ssize_t size; (size = getline(&text, &room, file)) > 0; lines++) {
    unsigned process;
    uint64_t sequence;
    std::string line(text, static_cast<size_t>(size) - 1);
    if (!context.report.expect_that(is_whole(line, process, sequence),
                                    "line " + std::to_string(lines) + " is torn"))
      continue;
    uint64_t wanted = next[process]++;
    if (!context.report.expect_that(sequence == wanted, "process " + std::to_string(process) + " record " +
                                                            std::to_string(sequence) + ", expected " +
                                                            std::to_string(wanted)))
      next[process] = sequence + 1;
  }
  free(text);
  fclose(file);
  for (auto [process, count] : next)
    context.report.expect_that(count == context.shared[process].load(),
                               "process " + std::to_string(process) + " wrote " +
                                   std::to_string(context.shared[process].load()) + " records, there are " +
                                   std::to_string(count));
}

}  // namespace faults
