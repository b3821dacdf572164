//! Every collective against plain loops, on awkward sizes and lengths.
