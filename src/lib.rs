pub mod comm;
pub mod data;
pub mod error;
pub mod exact;
pub mod rng;
use ndarray_linalg as _;
