// What the commands print: tables for people, JSON for programs, progress on a terminal.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace deep_gemm::cli {

/// A table on standard output. Columns whose cells are all numbers (or "-") are aligned to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Indented JSON and a newline on standard output; bytes that are not UTF-8 are replaced.
void print_json(const nlohmann::ordered_json& json);

/// A bar on standard error, drawn only where that is a terminal. Thread-safe.
class Progress {
 public:
  Progress(std::string what, std::size_t total);
  ~Progress();  ///< wipes the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// One more is done; `note` says what comes next or what was finished.
  void advance(const std::string& note);
  /// Only changes the note.
  void say(const std::string& note);

 private:
  void draw(const std::string& note);
  std::mutex mutex_;
  std::string what_;
  std::size_t total_, done_ = 0;
  bool terminal_;
};

/// Opens what is closed of standard input, output and error, so that no file opened later takes its place and gets what is
/// printed there.
void open_standard_files();

/// Writes to standard error what cannot be said elsewhere; where that is closed or full, nothing happens.
void say(std::string_view text);

/// `text` with line breaks and other control characters made visible, so that it fits on one line.
std::string one_line(std::string_view text);

/// "1.4 GiB"
std::string bytes_text(double bytes);

/// The middle value (the mean of the two middle ones); 0 of none.
double median(std::vector<double> values);

}  // namespace deep_gemm::cli
