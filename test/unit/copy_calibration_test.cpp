// kAuto: the table it asks, and the calibration file behind the table.
#include "fastpath/copy_calibration.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "fastpath/copy_trial.hpp"
#include "test/unit/check.hpp"

namespace {

using namespace poly;

TEST(size_classes) {
  CHECK_EQ(copy_class(0), 0);
  CHECK_EQ(copy_class(4095), 0);
  CHECK_EQ(copy_class(4096), 1);
  CHECK_EQ(copy_class(8191), 1);
  CHECK_EQ(copy_class(8192), 2);
  CHECK_EQ(copy_class((1 << 20) - 1), kCopyClasses - 2);
  CHECK_EQ(copy_class(1 << 20), kCopyClasses - 1);
  CHECK_EQ(copy_class(SIZE_MAX), kCopyClasses - 1);
  for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class)
    CHECK_EQ(copy_class(copy_class_size(size_class)), size_class);
}

TEST(auto_picks_the_cheapest_of_those_allowed) {
  CopyCosts costs;
  const uint32_t ns[kCopyMethods] = {1000, 900, 2000, 500};
  std::copy(std::begin(ns), std::end(ns), costs.ns[3]);
  const CopyTable table = make_copy_table(costs);
  const size_t size = copy_class_size(3);
  const CopyMethods pipelined = copy_bit(CopyMethod::kSmcPipelined), cma = copy_bit(CopyMethod::kCma);
  const CopyMethods smc = copy_bit(CopyMethod::kSmc), smo = copy_bit(CopyMethod::kSmo);
  CHECK_EQ(table.choose(size, kAllCopyMethods), CopyMethod::kCma);
  CHECK_EQ(table.choose(size, smc | pipelined | smo), CopyMethod::kSmcPipelined);
  CHECK_EQ(table.choose(size, smc | smo), CopyMethod::kSmc);
  CHECK_EQ(table.choose(size, smo), CopyMethod::kSmo);
  CHECK_EQ(table.choose(size, 0), CopyMethod::kSmc);
  CHECK_EQ(table.choose(size, UINT32_MAX), CopyMethod::kCma);
  CHECK_EQ(table.choose(100, kAllCopyMethods), CopyMethod::kSmc);                 // below every class
  CHECK_EQ(table.choose(copy_class_size(4), kAllCopyMethods), CopyMethod::kSmc);  // nothing known

  CHECK_EQ(table.resolve(CopyMethod::kAuto, size, smc | cma), CopyMethod::kCma);
  CHECK_EQ(table.resolve(CopyMethod::kSmo, size, kAllCopyMethods), CopyMethod::kSmo);
  CHECK_EQ(table.resolve(CopyMethod::kCma, size, smc), CopyMethod::kSmc);
}

TEST(auto_prefers_the_simpler_of_equals) {
  CopyCosts costs;
  const uint32_t ns[kCopyMethods] = {102, 101, 100, 104};
  std::copy(std::begin(ns), std::end(ns), costs.ns[1]);
  CHECK_EQ(make_copy_table(costs).choose(4096, kAllCopyMethods), CopyMethod::kSmc);
}

TEST(a_table_full_of_rubbish_stays_within_what_is_allowed) {
  CopyTable table;
  for (int i = 0; i < 1000; ++i) {
    for (auto& row : table.best)
      for (uint8_t& method : row) method = static_cast<uint8_t>(check::random()());
    const auto allowed = static_cast<CopyMethods>(check::random()()) & kAllCopyMethods;
    const size_t size = check::random()() >> check::random()() % 64;
    const CopyMethod chosen = table.choose(size, allowed);
    CHECK(chosen == CopyMethod::kSmc || (copy_bit(chosen) & allowed) != 0);
  }
}

// ---- Calibration ----

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const char* parent = std::getenv("TMPDIR");
    path_ = std::string(parent != nullptr ? parent : "/tmp") + "/poly-copy-XXXXXX";
    REQUIRE(mkdtemp(path_.data()) != nullptr);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  size_t entries() const {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator()));
  }

 private:
  std::string path_;
};

CopyCosts some_costs() {
  CopyCosts costs;
  for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class)
    for (uint32_t& ns : costs.ns[size_class]) ns = check::random()() % 1'000'000'000;
  return costs;
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_content(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

constexpr const char* kMachine = "A CPU, two of them; Linux 1.2.3";

TEST(calibration_file_round_trip) {
  const TemporaryDirectory directory;
  CopyCosts loaded;
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -ENOENT);
  for (int i = 0; i < 20; ++i) {
    const CopyCosts costs = some_costs();
    CHECK_EQ(store_copy_costs(directory.path(), kMachine, costs), 0);
    CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), 0);
    CHECK(std::memcmp(&costs, &loaded, sizeof costs) == 0);
  }
  CHECK_EQ(directory.entries(), 1);  // no temporary file is left
  struct stat status;
  REQUIRE(stat(copy_calibration_path(directory.path(), kMachine).c_str(), &status) == 0);
  CHECK_EQ(status.st_mode & 07777, 0644);
}

TEST(calibration_of_another_machine) {
  const TemporaryDirectory directory;
  CopyCosts loaded;
  REQUIRE(store_copy_costs(directory.path(), "another", some_costs()) == 0);
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -ENOENT);
  // The same name by a collision of hashes.
  std::filesystem::rename(copy_calibration_path(directory.path(), "another"),
                          copy_calibration_path(directory.path(), kMachine));
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -EBADMSG);
}

TEST(damaged_calibration_files) {
  const TemporaryDirectory directory;
  const std::string path = copy_calibration_path(directory.path(), kMachine);
  REQUIRE(store_copy_costs(directory.path(), kMachine, some_costs()) == 0);
  const std::string good = content(path);
  CopyCosts loaded;
  const CopyCosts untouched = loaded;
  for (size_t size = 0; size < good.size(); ++size) {
    write_content(path, good.substr(0, size));
    CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -EBADMSG);
  }
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    write_content(path, bad);
    CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -EBADMSG);
  }
  for (const std::string& bad :
       {good + "\n", good + good, good + std::string(100'000, 'x'), std::string(5000, '\0')}) {
    write_content(path, bad);
    CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), -EBADMSG);
  }
  CHECK(std::memcmp(&loaded, &untouched, sizeof loaded) == 0);
  write_content(path, good);
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, loaded), 0);
}

TEST(calibration_file_of_another_kind) {
  const TemporaryDirectory directory;
  const std::string path = copy_calibration_path(directory.path(), kMachine);
  CopyCosts costs = some_costs();
  REQUIRE(mkdir(path.c_str(), 0700) == 0);
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, costs), -EISDIR);
  CHECK_EQ(store_copy_costs(directory.path(), kMachine, costs), -EISDIR);
  CHECK_EQ(directory.entries(), 1);
  REQUIRE(rmdir(path.c_str()) == 0 && mkfifo(path.c_str(), 0600) == 0);
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, costs), -EBADMSG);  // and does not wait for a writer
  REQUIRE(unlink(path.c_str()) == 0 && symlink("elsewhere", path.c_str()) == 0);
  CHECK_EQ(load_copy_costs(directory.path(), kMachine, costs), -ELOOP);
  CHECK_EQ(store_copy_costs(directory.path(), kMachine, costs), 0);  // replaces the link
  CHECK(!std::filesystem::exists(directory.path() + "/elsewhere"));
  CHECK_EQ(store_copy_costs(directory.path() + "/none", kMachine, costs), -ENOENT);
}

TEST(machine_is_one_line) {
  CHECK(copy_machine().find('\n') == std::string::npos);
  CHECK(copy_machine().find("Linux") != std::string::npos);
  CHECK_EQ(copy_machine(), copy_machine());
}

// On a busy machine it says so instead of taking longer: the limit here is for a machine that does not even
// let it look at the clock.
TEST(measuring) {
  CopyCosts costs;
  const int64_t begin = monotonic_ns();
  const int result = measure_copy_costs(costs);
  CHECK(monotonic_ns() - begin < 5'000'000'000);
  CHECK(result == 0 || result == -EAGAIN || result == -EOPNOTSUPP);
  for (uint32_t size_class = 1; size_class < kCopyClasses; ++size_class)
    for (const CopyMethod method : {CopyMethod::kSmc, CopyMethod::kSmcPipelined, CopyMethod::kSmo})
      CHECK_EQ(costs.ns[size_class][static_cast<int>(method)] != 0, result == 0);
}

TEST(calibrating) {
  const TemporaryDirectory directory;
  const CopyCosts costs = some_costs();
  REQUIRE(store_copy_costs(directory.path(), copy_machine(), costs) == 0);
  const CopyCalibration loaded = calibrate_copy(directory.path());
  CHECK_EQ(loaded.from, CopyCalibration::kLoaded);
  CHECK_EQ(loaded.error, 0);
  const CopyTable table = make_copy_table(costs);
  CHECK(std::memcmp(&loaded.table, &table, sizeof table) == 0);

  write_content(copy_calibration_path(directory.path(), copy_machine()), "rubbish");
  const CopyCalibration again = calibrate_copy(directory.path());
  if (again.from == CopyCalibration::kMeasured) {
    CHECK_EQ(again.error, 0);
    CHECK_EQ(calibrate_copy(directory.path()).from, CopyCalibration::kLoaded);
  } else {
    CHECK_EQ(again.from, CopyCalibration::kDefault);
    CHECK(again.error == -EAGAIN || again.error == -EOPNOTSUPP);
    CHECK(std::memcmp(&again.table, &kDefaultCopyTable, sizeof kDefaultCopyTable) == 0);
  }
  const CopyCalibration nowhere = calibrate_copy(directory.path() + "/none");
  CHECK(nowhere.error != 0);
}

}  // namespace

CHECK_MAIN()
