// poly-conformance: runs the cases in a directory and in a reference directory on the host's own filesystem,
// and compares. It knows nothing of Polytropon: the same binary checks a FUSE mount, a preloaded front end or
// ext4. Exit status: 0 all passed, 1 something failed, 2 wrong usage.
#include <fnmatch.h>
#include <getopt.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "test/conformance/suite/actors.hpp"
#include "test/conformance/suite/deviations.hpp"
#include "test/conformance/suite/output.hpp"
#include "test/conformance/suite/runner.hpp"

namespace {

using namespace suite;  // NOLINT

constexpr int kStuckLimit = 2;  // after so many unkillable cases there is nobody to test any more
constexpr double kProbeSeconds = 10;

constexpr const char* kUsage =
    "usage: poly-conformance [--reference DIR] [--filter GLOB]... [--skip GLOB]... [--list] [--json] "
    "[--verbose] "
    "[--deviations FILE] [--patience FACTOR] DIR\n"
    "  --reference DIR  compare with this directory (default: a fresh one below /var/tmp)\n"
    "  --filter GLOB    only these cases: AREA/CASE, or AREA for all of an area\n"
    "  --skip GLOB      not these cases\n"
    "  --deviations F   these failures are known (suite/deviations.hpp); they count as skipped\n"
    "  --list           print the cases' names\n"
    "  --json           print one JSON document instead of lines\n"
    "  --verbose        print every case and its transcript\n"
    "  --patience F     multiply every time limit by F\n";

struct Options {
  std::string target;
  std::string reference;
  std::vector<std::string> filters;
  std::vector<std::string> skips;
  std::string deviations;
  bool list = false;
  bool json = false;
  bool verbose = false;
  double patience = 1;
};

bool matches(const std::vector<std::string>& globs, const Case& test) {
  for (const std::string& glob : globs) {
    const std::string whole = glob.find('/') == std::string::npos ? glob + "/*" : glob;
    if (fnmatch(whole.c_str(), test.title().c_str(), 0) == 0) return true;
  }
  return false;
}

bool parse(int argc, char** argv, Options& options) {
  static const option kLong[] = {{"reference", required_argument, nullptr, 'r'},
                                 {"filter", required_argument, nullptr, 'f'},
                                 {"skip", required_argument, nullptr, 's'},
                                 {"deviations", required_argument, nullptr, 'd'},
                                 {"patience", required_argument, nullptr, 'p'},
                                 {"list", no_argument, nullptr, 'l'},
                                 {"json", no_argument, nullptr, 'j'},
                                 {"verbose", no_argument, nullptr, 'v'},
                                 {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    switch (c) {
      case 'r':
        options.reference = optarg;
        break;
      case 'f':
        options.filters.emplace_back(optarg);
        break;
      case 's':
        options.skips.emplace_back(optarg);
        break;
      case 'd':
        options.deviations = optarg;
        break;
      case 'p':
        options.patience = std::atof(optarg);
        break;
      case 'l':
        options.list = true;
        break;
      case 'j':
        options.json = true;
        break;
      case 'v':
        options.verbose = true;
        break;
      default:
        return false;
    }
  }
  if (optind + 1 == argc) options.target = argv[optind];
  return options.patience > 0 && (options.list ? optind >= argc - 1 : !options.target.empty());
}

// A fresh directory below `parent` that every user can search.
std::string fresh_below(const std::string& parent) {
  std::string path = parent + "/poly-conformance.XXXXXX";
  const bool made = mkdtemp(path.data()) != nullptr && chmod(path.c_str(), 0755) == 0;
  return made ? path : "";
}

// Other users cannot enter some mounts at all (FUSE without allow_other); cases about them would all fail.
bool others_can_enter(const std::string& path) {
  return run_bounded(
      [&] {
        const bool other = setgroups(0, nullptr) == 0 && setresgid(kAlice.gid, kAlice.gid, kAlice.gid) == 0 &&
                           setresuid(kAlice.uid, kAlice.uid, kAlice.uid) == 0;
        return other && access(path.c_str(), X_OK) == 0;
      },
      kProbeSeconds);
}

// Why the case cannot run here; empty when it can.
std::string obstacle(const Case& test, const Options& options, bool others_enter) {
  if (matches(options.skips, test)) return "by --skip";
  if (test.options.root && !is_root()) return "needs root";
  if (test.options.root && !others_enter) return "other users cannot enter the directory";
  return "";
}

bool run_all(const Options& options, const std::vector<Case>& cases, const Deviations& deviations,
             const Place& place) {
  Output output(options.json, options.verbose);
  const bool others_enter = is_root() && others_can_enter(place.target);
  int stuck = 0;
  for (const Case& test : cases) {
    Verdict verdict;
    const std::string reason = obstacle(test, options, others_enter);
    if (!reason.empty()) {
      verdict.status = Status::skipped;
      verdict.reasons = {reason};
    } else if (stuck >= kStuckLimit) {
      verdict.status = Status::failed;
      verdict.reasons = {"not run: the filesystem does not answer any more"};
    } else {
      verdict = run_case(test, place);
      deviations.judge(test, verdict);
    }
    stuck += verdict.stuck ? 1 : 0;
    output.add(test, verdict);
  }
  return output.finish();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  std::vector<Case> cases;
  for (const Case& test : all_cases()) {
    if (options.filters.empty() || matches(options.filters, test)) cases.push_back(test);
  }
  if (options.list) {
    for (const Case& test : cases) std::puts(test.title().c_str());
    return 0;
  }
  if (cases.empty()) {
    std::fputs("poly-conformance: no case matches the filter\n", stderr);
    return 2;
  }
  Deviations deviations;
  std::string error;
  if (!options.deviations.empty() && !deviations.read(options.deviations, error)) {
    std::fprintf(stderr, "poly-conformance: %s\n", error.c_str());
    return 2;
  }
  if (const std::string title = deviations.unknown_case(all_cases()); !title.empty()) {
    std::fprintf(stderr, "poly-conformance: %s: no such case: %s\n", options.deviations.c_str(),
                 title.c_str());
    return 2;
  }
  char target[PATH_MAX];
  if (!run_bounded([&] { return access(options.target.c_str(), W_OK | X_OK) == 0; }, kProbeSeconds) ||
      !realpath(options.target.c_str(), target)) {
    std::fprintf(stderr, "poly-conformance: %s: cannot be written to, or does not answer\n",
                 options.target.c_str());
    return 2;
  }
  const Place place{fresh_below(target),
                    fresh_below(options.reference.empty() ? "/var/tmp" : options.reference),
                    options.patience};
  if (place.target.empty() || place.reference.empty()) {
    std::fprintf(stderr, "poly-conformance: cannot make a directory in %s\n",
                 place.target.empty() ? target : "the reference directory");
    return 2;
  }
  const bool passed = run_all(options, cases, deviations, place);
  (void)run_bounded([&] { return rmdir(place.target.c_str()) == 0; }, kProbeSeconds);
  rmdir(place.reference.c_str());
  return passed ? 0 : 1;
}
