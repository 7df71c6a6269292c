// Worker: a process that performs requests in the tree under test, with the preload library or without it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "test/fast/mixed/request.hpp"

namespace mixed {

class Worker {
 public:
  // Runs this program again, as `words` ... PROGRAM --worker ROOT.
  Worker(std::vector<std::string> words, const std::string& root);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // False: it has died, or does not answer.
  [[nodiscard]] bool ask(const Request& request, Result& out);

 private:
  int socket_ = -1;
  pid_t pid_ = -1;
};

// What the worker does; an exit status. Requests come on descriptor 0.
int serve(const char* root);

}  // namespace mixed
