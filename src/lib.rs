pub mod comm;
pub mod data;
pub mod error;
pub mod exact;
pub mod metric;
pub mod rng;
pub mod store;
use ndarray_linalg as _;
