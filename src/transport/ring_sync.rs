//! What: what `ring` is made of that a model of it replaces (see `model/`).
//!
//! In: nothing. Out: the fence of the standard library. Does not: contain anything that could be
//! tried out; that is all in `ring`.

pub(super) use std::sync::atomic::fence;
