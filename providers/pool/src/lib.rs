//! providers/pool
