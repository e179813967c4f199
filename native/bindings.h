// What the parts of the Python face add to the module.
#pragma once
#include <nanobind/nanobind.h>

namespace talu {

void bind_sampler(nanobind::module_& module);

}  // namespace talu
