// Data that was written and not synced when the service died is reported once, to each that had the file open
// for it.
#include "test/unit/fuse_rig.hpp"

using namespace rig;

namespace {

// Loses what is not synced, and fails to sync when it is told to.
struct Lossy final : ForwardingLibservice {
  using ForwardingLibservice::ForwardingLibservice;
  bool loses_unsynced() const override { return true; }
  int fsync(File& file, bool data_only) override {
    return fails ? -EIO : ForwardingLibservice::fsync(file, data_only);
  }
  bool fails = false;
};

struct Stage {
  Stage() {
    rig.die();
    begin();
    file = rig.lookup("f");
    if (file == 0) file = rig.call(rig.create_message("f", O_RDWR)).as<fuse_entry_out>().nodeid;
    fh = rig.open(file);
    REQUIRE(file != 0 && fh != 0);
  }
  ~Stage() { rig.die(); }
  void begin() {
    rig.local.start();
    lossy = std::make_unique<Lossy>(static_cast<Libservice&>(*rig.local.fs));
    rig.wrapper = lossy.get();
    rig.start();
  }
  void restart() {
    rig.die();
    begin();
  }
  void write(const char* text) { CHECK_EQ(rig.call(rig.write_message(file, fh, 0, text)).error, 0); }
  int fsync(uint64_t of) { return rig.call(Message(FUSE_FSYNC, file).with(fuse_fsync_in{of, 1, 0})).error; }
  int fsync() { return fsync(fh); }
  int close() {
    fuse_flush_in flush{};
    flush.fh = fh;
    return rig.call(Message(FUSE_FLUSH, file).with(flush)).error;
  }

  FuseRig rig;
  std::unique_ptr<Lossy> lossy;
  uint64_t file = 0, fh = 0;
};

}  // namespace

TEST(unsynced_data_lost_is_reported_once_by_fsync) {
  Stage stage;
  stage.write("lost");
  stage.restart();
  CHECK_EQ(stage.fsync(), -EIO);
  CHECK_EQ(stage.fsync(), 0);
}

TEST(unsynced_data_lost_is_reported_by_close) {
  Stage stage;
  stage.write("lost");
  stage.restart();
  CHECK_EQ(stage.close(), -EIO);
}

TEST(what_was_synced_is_not_lost) {
  Stage stage;
  stage.write("kept");
  CHECK_EQ(stage.fsync(), 0);
  stage.restart();
  CHECK_EQ(stage.fsync(), 0);
}

TEST(a_failed_sync_leaves_it_unsynced) {
  Stage stage;
  stage.write("lost");
  stage.lossy->fails = true;
  CHECK_EQ(stage.fsync(), -EIO);
  stage.restart();
  CHECK_EQ(stage.fsync(), -EIO);
}

TEST(who_has_not_written_hears_nothing) {
  Stage stage;
  const uint64_t other = stage.rig.open(stage.file, O_RDONLY);
  stage.write("lost");
  stage.restart();
  CHECK_EQ(stage.fsync(other), 0);
  CHECK_EQ(stage.fsync(), -EIO);
}

CHECK_MAIN()
