//! The suites that run in the lab. Each file in `tests/` is one; there is no library code.
