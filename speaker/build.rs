//! How the speaker is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // An executable that may be loaded anywhere has a table of what has to be adjusted, which stays in memory. Packed, it is a twentieth as large
    // (0.5 MB less on each node). Who loads it has to know that: glibc does since 2.36 (2022), musl since 1.2.4 (2023).
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
