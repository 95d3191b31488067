#include "direct.h"

#include <stdexcept>

namespace deep_gemm::python {

void set_python_error(const Error& error) {
  PyErr_SetString(error.code() == ErrorCode::invalid_argument ? PyExc_ValueError : PyExc_RuntimeError, error.what());
}

bool DirectArguments::is_true(std::size_t i, bool when_left_out) const {
  return has(i) ? nb::cast<bool>(nb::handle(values_[i])) : when_left_out;
}

nb::object DirectFunction::make(nb::object python, const std::string& doc, Builtin builtin) {
  const nb::object code = python.attr("__code__"), defaults = python.attr("__defaults__");
  positional_ = nb::cast<std::size_t>(code.attr("co_argcount"));
  required_ = positional_ - (defaults.is_none() ? 0 : nb::len(defaults));
  const std::size_t all = positional_ + nb::cast<std::size_t>(code.attr("co_kwonlyargcount"));
  if (all > DirectArguments::kMax) throw std::length_error("more parameters than a direct call can take");
  const nb::object names = code.attr("co_varnames");
  names_.clear();  // of a module that is loaded again
  for (std::size_t i = 0; i < all; ++i) {
    PyObject* name = nb::object(names[i]).release().ptr();
    PyUnicode_InternInPlace(&name);
    names_.push_back(name);
  }
  name_ = nb::cast<std::string>(python.attr("__name__"));
  doc_ = doc;
  // CPython's own way of storing functions of this signature.
  definition_ = {name_.c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(builtin)),
                 METH_FASTCALL | METH_KEYWORDS, doc_.c_str()};
  python_ = std::move(python);
  PyObject* made = PyCFunction_NewEx(&definition_, nullptr, nb::object(python_.attr("__module__")).ptr());
  if (!made) throw nb::python_error();
  return nb::steal(made);
}

bool DirectFunction::read(PyObject* const* given, Py_ssize_t count, PyObject* keywords, DirectArguments& out) const {
  const auto by_position = static_cast<std::size_t>(count);
  if (by_position > positional_) return false;
  for (std::size_t i = 0; i < by_position; ++i) out.values_[i] = given[i];
  const Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
  for (Py_ssize_t j = 0; j < named; ++j) {
    // Names in source code are interned; others take the way through Python.
    const PyObject* name = PyTuple_GetItem(keywords, j);
    std::size_t i = by_position;
    while (i < names_.size() && names_[i] != name) ++i;
    if (i == names_.size()) return false;
    out.values_[i] = given[count + j];
  }
  for (std::size_t i = by_position; i < required_; ++i)
    if (!out.has(i)) return false;
  return true;
}

PyObject* DirectFunction::call_python(PyObject* const* given, Py_ssize_t count, PyObject* keywords) const {
  PyObject* positional = PyTuple_New(count);
  PyObject* named = keywords ? PyDict_New() : nullptr;
  bool failed = !positional || (keywords && !named);
  for (Py_ssize_t i = 0; !failed && i < count; ++i) {
    Py_INCREF(given[i]);
    failed = PyTuple_SetItem(positional, i, given[i]) != 0;
  }
  for (Py_ssize_t j = 0; !failed && keywords && j < PyTuple_Size(keywords); ++j)
    failed = PyDict_SetItem(named, PyTuple_GetItem(keywords, j), given[count + j]) != 0;
  PyObject* result = failed ? nullptr : PyObject_Call(python_.ptr(), positional, named);
  Py_XDECREF(named);
  Py_XDECREF(positional);
  return result;
}

}  // namespace deep_gemm::python
