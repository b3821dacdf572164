//! The words of `mlp`.

use super::{whole, word};
use crate::config::{Activation, Norm, Precision};
use clap::Args;

/// Settings of `mlp` alone.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Networks")]
pub struct NetworkFlags {
    /// Units of each hidden layer, such as 512,512; 0: no hidden layer. Default 128,128.
    #[arg(long, value_name = "N,N…", value_parser = whole(), value_delimiter = ',')]
    pub layers: Option<Vec<u64>>,
    /// Channels of each stage of convolution before them, such as 32,64: 3 × 3 places around each, activation, and the largest of each 2 × 2
    /// places. For features that are one dataset n × height × width [× channels]. Default none.
    #[arg(long, value_name = "N,N…", value_parser = whole(), value_delimiter = ',')]
    pub conv: Option<Vec<u64>>,
    /// Numbers that stand for a category of a column that --categorical names, or of a column of strings. Default for the columns that are named: 1.6
    /// times the number of categories to the power of 0.56, 50 at most; strings that are not become features of 0 and 1.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub embed: Option<u64>,
    /// What follows each hidden layer: relu, gelu, tanh or silu. Default relu.
    #[arg(long, value_parser = word::<Activation>)]
    pub activation: Option<Activation>,
    /// Share of the units of each hidden layer that a step leaves out, chosen by seed, step and global row. Default 0.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub dropout: Option<f64>,
    /// What brings units to one scale before they are activated: layer (each row by itself), batch (each unit over the global batch), or none.
    /// Default none.
    #[arg(long, value_parser = word::<Norm>)]
    pub norm: Option<Norm>,
    /// Numbers that products of training multiply: f32, or bf16 (bfloat16), to which weights, activations and slopes are rounded on their way into a product. Sums,
    /// steps, the model, and all predictions are float32. The bits are the same on every processor. No faster than f32: the instructions for
    /// bfloat16 are not used, as they are slower (AVX512-BF16) or add in an order of their own (AMX). Default f32.
    #[arg(long, value_parser = word::<Precision>)]
    pub precision: Option<Precision>,
    /// Bits of a gradient's element between ranks: 32, 16 or 8. Below 32 each lane keeps what rounding loses for its next gradient. Default 32.
    #[arg(long, value_name = "BITS", value_parser = whole())]
    pub gradient_bits: Option<u64>,
    /// Share of a lane's gradient that travels, above 0 and at most 0.5: the largest numbers of each run of about 65,536, with their places (8 bytes
    /// each). The rest stays with the lane, and goes into its next gradient. Default none: everything travels.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub top_k: Option<f64>,
    /// Rank, from 1 to 32, of what travels of the gradient of a weight matrix: two thin matrices, if these are smaller. The rest stays with the lane, and
    /// goes into its next gradient. Default none: everything travels.
    #[arg(long, value_name = "RANK", value_parser = whole())]
    pub powersgd: Option<u64>,
    /// What goes into a hidden layer (of --layers, not a stage of --conv) of as many units is added to what comes out of it.
    #[arg(long)]
    pub residual: bool,
}
