//! The optimiser of a long vector of parameters, cut into pieces that threads or ranks step apart.

use super::{Optimizer, Real, Tensor, add_squares};
use crate::error::{Error, Result};
use crate::exact::ExactSum;
use rayon::prelude::*;
use std::ops::Range;

/// Parameters of a piece at most, if tensors may be cut: a multiple of [`RUN`](super::RUN), little enough for a core's cache, and for ranks to have
/// about equally many.
const MOST: usize = 16_384;

/// The pieces of these tensors, in order; none is empty. Not collective.
///
/// `whole_tensors`: none is cut, which [`Lamb`](super::Lamb) and [`Lars`](super::Lars) need. Else pieces are runs of 16,384 parameters and what is left
/// of a tensor. Either way they depend on the tensors alone.
pub fn cut(tensors: &[Tensor], whole_tensors: bool) -> Vec<Tensor> {
    let mut pieces = Vec::new();
    for tensor in tensors {
        let mut left = tensor.len;
        while left > 0 {
            let len = if whole_tensors { left } else { left.min(MOST) };
            pieces.push(Tensor { len, ..*tensor });
            left -= len;
        }
    }
    pieces
}

/// An [`Optimizer`] for each of the pieces that are owned: all of them, or a rank's share.
///
/// Steps are those of one optimiser of everything, bit for bit, whoever owns which piece. Gradients are those of the pieces owned, one after the other;
/// parameters are all there are.
pub struct Pieces<F: Real = f64> {
    /// The places of the pieces owned among the parameters.
    ranges: Vec<Range<usize>>,
    /// One a piece.
    optimizers: Vec<Box<dyn Optimizer<F>>>,
}

impl<F: Real> Pieces<F> {
    /// Owns these pieces that [`cut`] gave, but for those that `is_owned` (of a piece's number) leaves to others; remembers nothing of them.
    /// `make`: the optimiser of parameters of these tensors. Not collective.
    pub fn new(
        pieces: &[Tensor],
        is_owned: impl Fn(usize) -> bool,
        make: impl Fn(&[Tensor]) -> Box<dyn Optimizer<F>>,
    ) -> Pieces<F> {
        let (mut ranges, mut optimizers, mut end) = (Vec::new(), Vec::new(), 0);
        for (number, piece) in pieces.iter().enumerate() {
            if is_owned(number) {
                ranges.push(end..end + piece.len);
                optimizers.push(make(std::slice::from_ref(piece)));
            }
            end += piece.len;
        }
        Pieces { ranges, optimizers }
    }

    /// The places of the pieces owned among the parameters.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Parameters of the pieces owned.
    pub fn n_params(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Calls `make` with the place of each piece owned, its gradient to be filled, and `params` there. Not collective, on all threads.
    ///
    /// # Panics
    /// If a length is not that of the parameters.
    pub fn make(&self, grad: &mut [F], params: &[F], make: &(impl Fn(Range<usize>, &[F], &mut [F]) + Sync)) {
        assert_eq!(grad.len(), self.n_params(), "one number a parameter of the pieces owned");
        let of_pieces: Vec<(&Range<usize>, &mut [F])> = self.ranges.iter().zip(self.split(grad)).collect();
        of_pieces.into_par_iter().for_each(|(range, grad)| make(range.clone(), &params[range.clone()], grad));
    }

    /// One step of all pieces owned. Not collective, on all threads.
    ///
    /// # Panics
    /// If a length is not that of the parameters.
    pub fn step(&mut self, learning_rate: f64, grad: &mut [F], params: &mut [F]) {
        assert_eq!(grad.len(), self.n_params(), "one number a parameter of the pieces owned");
        let grads = self.split(grad);
        let pieces: Vec<_> = self.optimizers.iter_mut().zip(of_ranges(&self.ranges, params)).zip(grads).collect();
        pieces.into_par_iter().for_each(|((optimizer, params), grad)| optimizer.step(learning_rate, grad, params));
    }

    /// One step of all pieces owned, whose gradients are made one after the other, each stepped while it is in cache: `make` as of
    /// [`make`](Self::make), of what a piece before has left. Not collective, on all threads.
    ///
    /// # Panics
    /// If the length is not that of the parameters.
    pub fn step_made(
        &mut self,
        learning_rate: f64,
        params: &mut [F],
        make: &(impl Fn(Range<usize>, &[F], &mut [F]) + Sync),
    ) {
        let params = of_ranges(&self.ranges, params);
        let pieces: Vec<_> = self.optimizers.iter_mut().zip(&self.ranges).zip(params).collect();
        pieces.into_par_iter().for_each_init(Vec::new, |room, ((optimizer, range), params)| {
            // No longer than what it is for: whole tensors may be long.
            if room.len() < range.len() {
                *room = vec![F::default(); range.len()];
            }
            let grad = &mut room[..range.len()];
            make(range.clone(), params, grad);
            optimizer.step(learning_rate, grad, params);
        });
    }

    /// Σ grad² of the pieces owned; the sums of several owners, merged in any order, are that of the whole gradient. Not collective, on all threads.
    ///
    /// See [`length`](super::length) and [`shorten`](super::shorten).
    ///
    /// # Panics
    /// If the length is not that of the parameters.
    pub fn squares(&self, grad: &[F]) -> ExactSum {
        assert_eq!(grad.len(), self.n_params(), "one number a parameter of the pieces owned");
        let mut rest = grad;
        let of_piece = |range: &Range<usize>| rest.split_off(..range.len()).expect("one number a parameter");
        let pieces: Vec<&[F]> = self.ranges.iter().map(of_piece).collect();
        let squares = |piece: &[F]| {
            let mut sum = ExactSum::new();
            add_squares(piece, &mut sum);
            sum
        };
        pieces.into_par_iter().map(squares).reduce(ExactSum::new, |mut sum, other| {
            sum.merge(&other);
            sum
        })
    }

    /// `values`, one a parameter of the pieces owned, piece by piece. Not collective.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split<'v, T>(&self, mut values: &'v mut [T]) -> Vec<&'v mut [T]> {
        let of_piece = |range: &Range<usize>| values.split_off_mut(..range.len()).expect("one value a parameter");
        self.ranges.iter().map(of_piece).collect()
    }

    /// What a checkpoint must hold to go on with the same bits: of each piece owned some numbers, how many depends on the piece alone.
    /// Not collective.
    pub fn state(&self) -> Vec<Vec<F>> {
        let arrays = self.optimizers.iter().map(|optimizer| optimizer.state());
        arrays.map(|arrays| arrays.into_iter().flat_map(|(_, values)| values.to_vec()).collect()).collect()
    }

    /// Takes up the [`state`](Self::state) of the same pieces. Not collective.
    ///
    /// # Errors
    /// Data: there are more or fewer pieces or numbers. Then nothing has changed.
    pub fn restore(&mut self, state: &[impl AsRef<[F]>]) -> Result<()> {
        let lens = |state: &[Vec<F>]| state.iter().map(Vec::len).collect::<Vec<_>>();
        let (own, given) = (lens(&self.state()), state.iter().map(|values| values.as_ref().len()).collect::<Vec<_>>());
        if own != given {
            let (own, given) = (own.iter().sum::<usize>(), given.iter().sum::<usize>());
            return Err(Error::data(format!("the optimiser's state has {given} numbers but {own} were expected")));
        }
        for (optimizer, values) in self.optimizers.iter_mut().zip(state) {
            let mut rest = values.as_ref();
            for (_, own) in optimizer.state_mut() {
                let (values, after) = rest.split_at(own.len());
                own.copy_from_slice(values);
                rest = after;
            }
        }
        Ok(())
    }
}

/// The parameters of pieces, between which there may be those of others.
fn of_ranges<'p, F>(ranges: &[Range<usize>], mut params: &'p mut [F]) -> Vec<&'p mut [F]> {
    let mut end = 0;
    let of_range = |range: &Range<usize>| {
        let _of_others = params.split_off_mut(..range.start - end);
        end = range.end;
        params.split_off_mut(..range.len()).expect("a number a parameter")
    };
    ranges.iter().map(of_range).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Adagrad, Adam, Lamb, Lars, Sgd, length};
    use super::*;

    const TENSORS: [Tensor; 6] = [
        Tensor::new(2 * MOST + 4099),
        Tensor::free(13),
        Tensor::new(0),
        Tensor::new(MOST),
        Tensor::free(1),
        Tensor::new(8_191),
    ];
    type Make<F> = fn(&[Tensor]) -> Box<dyn Optimizer<F>>;

    fn n_params(tensors: &[Tensor]) -> usize {
        tensors.iter().map(|tensor| tensor.len).sum()
    }

    fn makers<F: Real>() -> [(bool, Make<F>); 6] {
        [
            (false, |tensors| Box::new(Sgd::new(n_params(tensors), 0.9, true))),
            (false, |tensors| Box::new(Adam::new(n_params(tensors), [0.9, 0.999], 1e-8))),
            (false, |tensors| Box::new(Adam::new(n_params(tensors), [0.9, 0.999], 1e-8).with_decay(0.1, tensors))),
            (false, |tensors| Box::new(Adagrad::new(n_params(tensors), 1e-10))),
            (true, |tensors| Box::new(Lamb::new(tensors, [0.9, 0.999], 1e-6, 0.01, 1.0, 0.0))),
            (true, |tensors| Box::new(Lars::new(tensors, 0.9, 0.01, 0.0, 1.0))),
        ]
    }

    fn values<F: Real>(seed: usize, n: usize) -> Vec<F> {
        (0..n).map(|i| F::from_f64(libm::sin((i % 977 * (seed + 3) + i / 977) as f64))).collect()
    }

    fn equals_one_optimiser<F: Real>() {
        let n = n_params(&TENSORS);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (place, (whole_tensors, make)) in makers::<F>().into_iter().enumerate() {
            let mut one = make(&TENSORS);
            let cut = cut(&TENSORS, whole_tensors);
            let mut pieces = Pieces::new(&cut, |_| true, make);
            // One owner has pieces of others between its own, one has none.
            let owner = |number: usize| [0, 1, 0, 3][number % 4];
            let mut shares: Vec<Pieces<F>> =
                (0..4).map(|rank| Pieces::new(&cut, |number| owner(number) == rank, make)).collect();
            let start: Vec<F> = values(7, n);
            let (mut params, mut of_pieces, mut of_shares) = (start.clone(), start.clone(), start);
            for step in 0..3 {
                let mut grad: Vec<F> = values(step, n);
                one.step(0.1, &grad, &mut params);
                let given = grad.clone();
                pool.install(|| pieces.step(0.1, &mut grad, &mut of_pieces));
                for share in shares.iter_mut().rev() {
                    let make = |range: Range<usize>, _: &[F], grad: &mut [F]| grad.copy_from_slice(&given[range]);
                    pool.install(|| share.step_made(0.1, &mut of_shares, &make));
                }
                assert!(of_pieces == params, "optimiser {place}, step {step}");
                assert!(of_shares == params, "optimiser {place}, step {step}, shared");
            }
            let mut parts: Vec<_> = shares.iter().map(|share| share.state().into_iter()).collect();
            let joined: Vec<Vec<F>> = (0..cut.len()).filter_map(|number| parts[owner(number)].next()).collect();
            assert!(joined == pieces.state(), "optimiser {place}");
        }
    }

    #[test]
    fn pieces_have_the_bits_of_one_optimiser_of_all_parameters() {
        equals_one_optimiser::<f64>();
        equals_one_optimiser::<f32>();
    }

    #[test]
    fn pieces_end_where_tensors_do() {
        let pieces: Pieces<f32> = Pieces::new(&cut(&TENSORS, false), |_| true, makers()[0].1);
        let ends: Vec<usize> = pieces.ranges().iter().map(|range| range.end).collect();
        let third = 2 * MOST + 4099;
        assert_eq!(ends, [MOST, 2 * MOST, third, third + 13, third + 13 + MOST, third + 14 + MOST, n_params(&TENSORS)]);
        let free: Vec<bool> = cut(&TENSORS, true).iter().map(|piece| piece.is_free).collect();
        assert_eq!(free, [false, true, false, true, false]);
    }

    #[test]
    fn restored_pieces_continue_with_the_same_bits_and_refuse_what_does_not_fit() {
        let n = n_params(&TENSORS);
        for (whole_tensors, make) in makers::<f32>() {
            let cut = cut(&TENSORS, whole_tensors);
            let mut pieces = Pieces::new(&cut, |_| true, make);
            let mut params: Vec<f32> = values(1, n);
            pieces.step(0.1, &mut values(2, n), &mut params);
            let mut copy = params.clone();
            let mut state = pieces.state();
            let mut again = Pieces::new(&cut, |_| true, make);
            again.restore(&state).unwrap();
            pieces.step(0.1, &mut values(3, n), &mut params);
            again.step(0.1, &mut values(3, n), &mut copy);
            assert!(params == copy);
            let last = state.len() - 1;
            state[last].pop();
            let before = again.state();
            assert!(again.restore(&state).is_err());
            assert!(again.restore(&state[..last]).is_err());
            assert!(again.state() == before);
        }
    }

    #[test]
    fn squares_do_not_depend_on_who_has_which_pieces() {
        let n = n_params(&TENSORS);
        let grad: Vec<f32> = values(5, n);
        let mut sums = Vec::new();
        for whole_tensors in [false, true] {
            let cut = cut(&TENSORS, whole_tensors);
            let mut parts = ExactSum::new();
            for rank in 0..3 {
                let share: Pieces<f32> = Pieces::new(&cut, |number| number * 2 % 3 == rank, makers()[0].1);
                let mine: Vec<f32> = share.ranges().iter().flat_map(|range| &grad[range.clone()]).copied().collect();
                parts.merge(&share.squares(&mine));
            }
            let pieces: Pieces<f32> = Pieces::new(&cut, |_| true, makers()[0].1);
            assert_eq!(parts, pieces.squares(&grad));
            let plain = libm::sqrt(grad.iter().map(|g| f64::from(*g) * f64::from(*g)).sum());
            approx::assert_relative_eq!(length(&parts), plain, max_relative = 1e-12);
            sums.push(parts);
        }
        // Whether pieces are whole tensors leaves no trace either.
        assert_eq!(sums[0], sums[1]);
    }
}
