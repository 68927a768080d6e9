//! speaker/wire
