// The Python face of the native module: shapes, lifetimes and the GIL are dealt with here.
#include <nanobind/nanobind.h>

NB_MODULE(_native, m) { m.doc() = "Kernels and executor of talu."; }
