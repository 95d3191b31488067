// Builtins that stand in front of Python functions: an ordinary call goes from the caller's arguments straight to the library.
#pragma once

#include <array>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>

#include <deep_gemm/error.h>

namespace deep_gemm::python {

namespace nb = nanobind;

/// The arguments of one call by their place in the Python function's signature; borrowed.
class DirectArguments {
 public:
  static constexpr std::size_t kMax = 16;
  bool has(std::size_t i) const { return values_[i] != nullptr; }
  /// None where it was left out.
  nb::handle operator[](std::size_t i) const { return has(i) ? nb::handle(values_[i]) : nb::handle(Py_None); }
  bool is_true(std::size_t i, bool when_left_out) const;

 private:
  friend class DirectFunction;
  std::array<PyObject*, kMax> values_{};
};

/// CPython's METH_FASTCALL | METH_KEYWORDS function.
using Builtin = PyObject* (*)(PyObject* self, PyObject* const* given, Py_ssize_t count, PyObject* keywords);

/// What a builtin knows of the Python function behind it.
class DirectFunction {
 public:
  /// Makes the Python object of `builtin`, which uses this one; both live for ever.
  nb::object make(nb::object python, const std::string& doc, Builtin builtin);
  /// Calls `body(DirectArguments)`, which returns whether it made the call. Where it did not, and for arguments that do not
  /// fit the signature, the Python function gets the same arguments, so that whatever is unusual has one implementation.
  template <class Body>
  PyObject* call(PyObject* const* given, Py_ssize_t count, PyObject* keywords, Body&& body) const;

 private:
  bool read(PyObject* const* given, Py_ssize_t count, PyObject* keywords, DirectArguments& out) const;
  PyObject* call_python(PyObject* const* given, Py_ssize_t count, PyObject* keywords) const;

  std::string name_, doc_;
  PyMethodDef definition_{};
  std::vector<PyObject*> names_;  // interned
  std::size_t positional_ = 0, required_ = 0;
  nb::object python_;
};

/// Sets Python's exception for an error of the library.
void set_python_error(const Error& error);

template <class Body>
PyObject* DirectFunction::call(PyObject* const* given, Py_ssize_t count, PyObject* keywords, Body&& body) const {
  DirectArguments arguments;
  if (!read(given, count, keywords, arguments)) return call_python(given, count, keywords);
  try {
    if (body(arguments)) return nb::none().release().ptr();
  } catch (const Error& error) {
    set_python_error(error);
    return nullptr;
  } catch (...) {
    // Raised again on the way through the Python function, with the exception's own type.
  }
  return call_python(given, count, keywords);
}

}  // namespace deep_gemm::python
