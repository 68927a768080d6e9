//! speaker/sys
