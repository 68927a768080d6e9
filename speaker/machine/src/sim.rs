//! A link full of machines on a virtual clock: what must hold whatever the wire and the nodes do.
//!
//! Everything follows from a seed. A failure shows its seed and what happened.

mod caretaker;
mod chaos;
mod faults;
mod mutants;
mod relay;
mod world;
