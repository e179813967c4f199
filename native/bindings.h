// Declares the functions that add the parts of the Python bindings to the module.
#pragma once
#include <nanobind/nanobind.h>

namespace talu {

void bind_sampler(nanobind::module_& module);
void bind_texts(nanobind::module_& module);

}  // namespace talu
