//! speaker/machine
