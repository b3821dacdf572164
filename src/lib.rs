//! Consort trains models on HDF5 tables of any size, on any number of MPI ranks, and the number of ranks
//! never changes the answer: whatever is summed across blocks is an integer.
//!
//! ```text
//!  file.h5 ──data::hdf5──► DataSource ──data::partition──► my rows ──train::prepare──► Table ──┐
//!                                                                                               │ local, rayon
//!    model.h5 ◄──store── Model ◄──solver's step── global gradient ◄──comm::all_reduce── integers ◄─┘ model × objective
//!                                     └──predict: model.h5 + other.h5 → predictions.h5 (same blocks)
//! ```
//! *open → partition → read blocks → local sums → all-reduce → step → save → predict.*
//!
//! The rooms, from the bottom up; each opens with what goes in, what comes out and whether it talks:
//!
//! * `error` one error type; `rng` draws by global row; `functions` transcendentals with the same bits everywhere;
//!   `exact` sums that do not depend on who adds first; `faults` failures that tests ask for
//! * `comm` ranks that talk; `blas` one thread of it, the same on all ranks; `data` rows on disk to rows in memory; `objective` losses; `metric` statistics that merge;
//!   `optim` gradients to parameters; `matmul` products of matrices with the same bits everywhere; `grow` binned rows and gradient pairs to trees
//! * `config` the settings of a training; `model` inert values that predict
//! * `store` models and predictions in HDF5
//! * `train` the only room that combines all the others; `predict`, `convert`, `verify`,
//!   `doctor` the other commands
//! * `nodes` what has to be the same on all of them: input files, the program
//! * `guard` what watches over a run: signals, time limits, ranks that are lost
//! * `cli` words typed by a person; `report` what a person sees while waiting; `slurm` batch scripts for jobs
#![deny(unsafe_code)]

pub mod blas;
pub mod cli;
pub mod comm;
pub mod config;
pub mod convert;
pub mod data;
pub mod doctor;
pub mod error;
pub mod exact;
pub mod faults;
pub mod functions;
pub mod grow;
pub mod guard;
pub mod matmul;
pub mod metric;
pub mod model;
pub mod nodes;
pub mod objective;
pub mod optim;
pub mod predict;
pub mod report;
pub mod rng;
pub mod slurm;
pub mod store;
pub mod train;
pub mod verify;

use ndarray_linalg as _;
