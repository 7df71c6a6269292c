// Everything a case file needs.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "test/conformance/suite/actors.hpp"
#include "test/conformance/suite/case.hpp"
#include "test/conformance/suite/expect.hpp"
#include "test/conformance/suite/files.hpp"
#include "test/conformance/suite/times.hpp"

using namespace suite;  // NOLINT: case files only
