//! What the rows of a node are summed to, and how pure a node of such sums is: three kinds of it, all in integers.
//!
//! A *cell* is the sums of some rows as words. Cells are added word by word, wrapping, so that any order gives the same; the bounds that
//! make this safe are those of whoever made the rows. Source of the impurities: Breiman, Friedman, Olshen, Stone, *Classification
//! and regression trees*, 1984, chapters 4 and 8.

/// A row of a tree: where its bins are, and what it adds to a cell.
pub(super) trait Problem: Sync {
    type Item: Copy + Send + Sync;
    /// What an item adds, ready to be added to several cells.
    type Word: Copy;
    /// Bytes of an item that travels.
    const ITEM_BYTES: usize;

    /// Words of a cell.
    fn width(&self) -> usize;
    fn row(item: &Self::Item) -> usize;
    /// The same with its bins in another place.
    fn moved(item: &Self::Item, row: u32) -> Self::Item;
    fn word(item: &Self::Item) -> Self::Word;
    fn add_word(&self, cell: &mut [u64], word: Self::Word);

    #[inline]
    fn add(&self, cell: &mut [u64], item: &Self::Item) {
        self.add_word(cell, Self::word(item));
    }

    /// Rows, each as often as it was drawn.
    fn draws(&self, cell: &[u64]) -> u64;
    /// What [`gain`](Self::gain) wants to know of a node, once.
    fn of_node(&self, total: &[u64]) -> f64;
    /// How much lower Σ weight times impurity is after a split, and the other side's cell in `right`; None: not lower, or a side has too
    /// few draws.
    fn gain(&self, of_node: f64, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<f64>;
    /// Nothing can be gained by splitting rows of these sums.
    fn is_pure(&self, cell: &[u64]) -> bool;
    /// The same of rows whose sums do not say so.
    fn are_alike(&self, items: &[Self::Item]) -> bool;
    /// What categories of a node are ordered by.
    fn rank(&self, cell: &[u64], of_node: &[u64]) -> f64;
    /// Appends the shares of a leaf, or returns its number.
    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64;
    /// An item without its row, as [`ITEM_BYTES`](Self::ITEM_BYTES) bytes, and back.
    fn put(item: &Self::Item, bytes: &mut Vec<u8>);
    fn take(bytes: &[u8], row: u32) -> Self::Item;
}

/// Two classes with Gini impurity: Σ weight of class 1 in the upper half of one word, Σ weight in the lower. For weights that count
/// draws, which add up to less than 2³².
pub(super) struct Binary;

#[derive(Clone, Copy)]
pub(super) struct BinaryItem {
    row: u32,
    /// weight·2 + class
    word: u32,
}

impl BinaryItem {
    pub(super) fn new(row: u32, class: u16, weight: u32) -> BinaryItem {
        BinaryItem { row, word: weight << 1 | u32::from(class) }
    }
}

impl Binary {
    /// Σ weight of class 1, and of both.
    #[inline]
    fn parts(cell: &[u64]) -> (u64, u64) {
        (cell[0] >> 32, cell[0] & u64::from(u32::MAX))
    }
}

impl Problem for Binary {
    type Item = BinaryItem;
    type Word = u64;
    const ITEM_BYTES: usize = 4;

    #[inline]
    fn width(&self) -> usize {
        1
    }

    #[inline]
    fn row(item: &BinaryItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &BinaryItem, row: u32) -> BinaryItem {
        BinaryItem { row, ..*item }
    }

    #[inline]
    fn word(item: &BinaryItem) -> u64 {
        let weight = u64::from(item.word >> 1);
        (weight << 32) * u64::from(item.word & 1) + weight
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], word: u64) {
        cell[0] = cell[0].wrapping_add(word);
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        Binary::parts(cell).1
    }

    /// 2/Σ weight.
    fn of_node(&self, total: &[u64]) -> f64 {
        2.0 / Binary::parts(total).1.max(1) as f64
    }

    #[inline]
    fn gain(&self, of_node: f64, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<f64> {
        right[0] = total[0].wrapping_sub(left[0]);
        let ((left_ones, left), (right_ones, right)) = (Binary::parts(left), Binary::parts(right));
        // Weights of both sides add up to less than 2³², so that no product has more than 62 bits.
        let apart = (left_ones * right) as i64 - (right_ones * left) as i64;
        if left < least_draws || right < least_draws || apart == 0 {
            return None;
        }
        Some(apart as f64 * apart as f64 / (left * right) as f64 * of_node)
    }

    #[inline]
    fn is_pure(&self, cell: &[u64]) -> bool {
        let (ones, all) = Binary::parts(cell);
        ones == 0 || ones == all
    }

    fn are_alike(&self, _: &[BinaryItem]) -> bool {
        false
    }

    fn rank(&self, cell: &[u64], _: &[u64]) -> f64 {
        let (ones, all) = Binary::parts(cell);
        ones as f64 / all.max(1) as f64
    }

    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64 {
        shares.push(self.rank(cell, cell) as f32);
        0.0
    }

    fn put(item: &BinaryItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.word.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> BinaryItem {
        BinaryItem { row, word: u32_at(bytes, 0) }
    }
}

/// Classes of any number: Σ weight of each, and draws.
pub(super) struct Classes {
    pub(super) n_classes: usize,
    pub(super) is_entropy: bool,
}

#[derive(Clone, Copy)]
pub(super) struct ClassItem {
    weight: u64,
    row: u32,
    class: u16,
    draws: u16,
}

impl ClassItem {
    pub(super) fn new(row: u32, class: u16, weight: u64, draws: u16) -> ClassItem {
        ClassItem { weight, row, class, draws }
    }

    /// * `by`: of each class. A weight is at least one.
    pub(super) fn multiply(&mut self, by: &[f64]) {
        self.weight = ((self.weight as f64 * by[usize::from(self.class)]) as u64).max(1);
    }
}

impl Classes {
    fn weight(&self, cell: &[u64]) -> u64 {
        cell[..self.n_classes].iter().sum()
    }

    /// Σ weight times entropy.
    fn entropy(&self, cell: &[u64]) -> f64 {
        let of = |weight: u64| if weight == 0 { 0.0 } else { weight as f64 * libm::log(weight as f64) };
        of(self.weight(cell)) - cell[..self.n_classes].iter().fold(0.0, |sum, weight| sum + of(*weight))
    }
}

/// Entropy that is lower by less than this share may be as low.
const LEAST_GAIN: f64 = 1e-12;

fn other_side(total: &[u64], left: &[u64], right: &mut [u64]) {
    for ((right, total), left) in right.iter_mut().zip(total).zip(left) {
        *right = total.wrapping_sub(*left);
    }
}

impl Problem for Classes {
    type Item = ClassItem;
    type Word = ClassItem;
    const ITEM_BYTES: usize = 12;

    #[inline]
    fn width(&self) -> usize {
        self.n_classes + 1
    }

    #[inline]
    fn row(item: &ClassItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &ClassItem, row: u32) -> ClassItem {
        ClassItem { row, ..*item }
    }

    #[inline]
    fn word(item: &ClassItem) -> ClassItem {
        *item
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], item: ClassItem) {
        cell[usize::from(item.class)] += item.weight;
        cell[self.n_classes] += u64::from(item.draws);
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        cell[self.n_classes]
    }

    /// Of entropy, that of the node; else Σ weight.
    fn of_node(&self, total: &[u64]) -> f64 {
        if self.is_entropy { self.entropy(total) } else { self.weight(total) as f64 }
    }

    #[inline]
    fn gain(&self, of_node: f64, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<f64> {
        other_side(total, left, right);
        if self.draws(left) < least_draws || self.draws(right) < least_draws {
            return None;
        }
        if self.is_entropy {
            let left_over = self.entropy(left) + self.entropy(right);
            return (left_over < of_node * (1.0 - LEAST_GAIN)).then_some(of_node - left_over);
        }
        let (left_all, right_all) = (self.weight(left), self.weight(right));
        let of_classes = left[..self.n_classes].iter().zip(&right[..self.n_classes]);
        let squares = match left_all + right_all < 1 << 31 {
            true => of_classes.fold(0.0, |sum, (left, right)| {
                let apart = (left * right_all) as i64 - (right * left_all) as i64;
                sum + apart as f64 * apart as f64
            }),
            false => of_classes.fold(0.0, |sum, (left, right)| {
                let apart = i128::from(*left) * i128::from(right_all) - i128::from(*right) * i128::from(left_all);
                sum + apart as f64 * apart as f64
            }),
        };
        (squares > 0.0).then(|| squares / (left_all as f64 * right_all as f64) / of_node)
    }

    #[inline]
    fn is_pure(&self, cell: &[u64]) -> bool {
        cell[..self.n_classes].iter().filter(|weight| **weight > 0).count() < 2
    }

    fn are_alike(&self, _: &[ClassItem]) -> bool {
        false
    }

    /// The share of the class that the node has the most of.
    fn rank(&self, cell: &[u64], of_node: &[u64]) -> f64 {
        let of_node = &of_node[..self.n_classes];
        let most = (1..self.n_classes).fold(0, |most, class| if of_node[class] > of_node[most] { class } else { most });
        cell[most] as f64 / cell[..self.n_classes].iter().sum::<u64>().max(1) as f64
    }

    fn leaf(&self, cell: &[u64], shares: &mut Vec<f32>) -> f64 {
        let cell = &cell[..self.n_classes];
        let all = cell.iter().sum::<u64>().max(1) as f64;
        let share = |weight: &u64| (*weight as f64 / all) as f32;
        // Of two classes that of the second says both.
        shares.extend(cell[if self.n_classes == 2 { 1 } else { 0 }..].iter().map(share));
        0.0
    }

    fn put(item: &ClassItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.weight.to_le_bytes());
        bytes.extend_from_slice(&item.class.to_le_bytes());
        bytes.extend_from_slice(&item.draws.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> ClassItem {
        let [class, draws] = [8, 10].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        ClassItem { weight: u64_at(bytes, 0), row, class, draws }
    }
}

/// Numbers with squared error: Σ weight·target in units, Σ weight, draws.
pub(super) struct Numbers {
    /// What a target of 0 and one unit stand for.
    pub(super) zero: f64,
    pub(super) unit: f64,
    /// No target is beyond them, and so no mean.
    pub(super) range: [f64; 2],
}

#[derive(Clone, Copy)]
pub(super) struct NumberItem {
    target: i64,
    row: u32,
    weight: u32,
    draws: u32,
}

impl NumberItem {
    pub(super) fn new(row: u32, target: i64, weight: u32, draws: u32) -> NumberItem {
        NumberItem { target, row, weight, draws }
    }
}

impl Problem for Numbers {
    type Item = NumberItem;
    type Word = [u64; 3];
    const ITEM_BYTES: usize = 16;

    #[inline]
    fn width(&self) -> usize {
        3
    }

    #[inline]
    fn row(item: &NumberItem) -> usize {
        item.row as usize
    }

    #[inline]
    fn moved(item: &NumberItem, row: u32) -> NumberItem {
        NumberItem { row, ..*item }
    }

    #[inline]
    fn word(item: &NumberItem) -> [u64; 3] {
        [(item.target * i64::from(item.weight)) as u64, item.weight.into(), item.draws.into()]
    }

    #[inline]
    fn add_word(&self, cell: &mut [u64], word: [u64; 3]) {
        cell.iter_mut().zip(word).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
    }

    #[inline]
    fn draws(&self, cell: &[u64]) -> u64 {
        cell[2]
    }

    /// Σ weight.
    fn of_node(&self, total: &[u64]) -> f64 {
        total[1] as f64
    }

    /// By the difference of the means, which is exact: nothing is lost where most targets are alike and far from zero.
    #[inline]
    fn gain(&self, of_node: f64, total: &[u64], left: &[u64], right: &mut [u64], least_draws: u64) -> Option<f64> {
        other_side(total, left, right);
        let sum = |cell: &[u64]| i128::from(cell[0] as i64);
        let apart = sum(left) * i128::from(right[1]) - sum(right) * i128::from(left[1]);
        if left[2] < least_draws || right[2] < least_draws || apart == 0 {
            return None;
        }
        Some(apart as f64 * apart as f64 / (left[1] as f64 * right[1] as f64) / of_node)
    }

    #[inline]
    fn is_pure(&self, _: &[u64]) -> bool {
        false
    }

    fn are_alike(&self, items: &[NumberItem]) -> bool {
        items.windows(2).all(|pair| pair[0].target == pair[1].target)
    }

    fn rank(&self, cell: &[u64], _: &[u64]) -> f64 {
        cell[0] as i64 as f64 / cell[1].max(1) as f64
    }

    fn leaf(&self, cell: &[u64], _: &mut Vec<f32>) -> f64 {
        (self.zero + self.rank(cell, cell) * self.unit).clamp(self.range[0], self.range[1])
    }

    fn put(item: &NumberItem, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&item.target.to_le_bytes());
        bytes.extend_from_slice(&item.weight.to_le_bytes());
        bytes.extend_from_slice(&item.draws.to_le_bytes());
    }

    fn take(bytes: &[u8], row: u32) -> NumberItem {
        NumberItem { target: u64_at(bytes, 0) as i64, row, weight: u32_at(bytes, 8), draws: u32_at(bytes, 12) }
    }
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell<P: Problem>(problem: &P, items: &[P::Item]) -> Vec<u64> {
        let mut cell = vec![0; problem.width()];
        items.iter().for_each(|item| problem.add(&mut cell, item));
        cell
    }

    /// What Σ weight times impurity falls by, as the books have it.
    fn gini(left: [f64; 2], right: [f64; 2]) -> f64 {
        let of = |[zeros, ones]: [f64; 2]| {
            let all = zeros + ones;
            if all > 0.0 { all - (zeros * zeros + ones * ones) / all } else { 0.0 }
        };
        of([left[0] + right[0], left[1] + right[1]]) - of(left) - of(right)
    }

    #[test]
    fn gains_are_those_of_the_books_packed_or_by_class() {
        let classes = Classes { n_classes: 2, is_entropy: false };
        for [a, b, c, d] in [[1u32, 0, 0, 1], [3, 5, 4, 1], [1_000_000, 7, 3, 9], [1 << 29, 1 << 28, 1 << 27, 1 << 30]]
        {
            let expected = gini([a.into(), b.into()], [c.into(), d.into()]);
            let binary = |zeros, ones| cell(&Binary, &[BinaryItem::new(0, 0, zeros), BinaryItem::new(0, 1, ones)]);
            let (left, total) = (binary(a, b), binary(a + c, b + d));
            let packed = Binary.gain(Binary.of_node(&total), &total, &left, &mut [0], 1).unwrap();
            let by_class = |zeros: u32, ones: u32, times: u64| {
                let item = |class, weight: u32| ClassItem::new(0, class, u64::from(weight) * times, 1);
                cell(&classes, &[item(0, zeros), item(1, ones)])
            };
            for times in [1, 1 << 20] {
                let (left, total) = (by_class(a, b, times), by_class(a + c, b + d, times));
                let found = classes.gain(classes.of_node(&total), &total, &left, &mut [0; 3], 0).unwrap();
                assert!((found / times as f64 - expected).abs() <= 1e-6 * expected, "{found} {expected}");
            }
            assert!((packed - expected).abs() <= 1e-6 * expected, "{packed} {expected}");
        }
    }

    #[test]
    fn one_target_far_away_does_not_hide_the_others() {
        let numbers = Numbers { zero: 0.0, unit: 1.0, range: [-1e30, 1e30] };
        let far = 1 << 40;
        let left = cell(&numbers, &[NumberItem::new(0, -far, 1, 1), NumberItem::new(0, -far, 1, 1)]);
        let total = cell(&numbers, &[NumberItem::new(0, -far, 2, 2), NumberItem::new(0, 1 - far, 2, 2)]);
        let gain = numbers.gain(numbers.of_node(&total), &total, &left, &mut [0; 3], 1);
        assert_eq!(gain, Some(1.0));
        let half = cell(&numbers, &[NumberItem::new(0, -far, 1, 1), NumberItem::new(0, 1 - far, 1, 1)]);
        assert_eq!(numbers.gain(numbers.of_node(&total), &total, &half, &mut [0; 3], 1), None);
    }

    #[test]
    fn items_come_back_from_bytes() {
        let numbers = Numbers { zero: 0.0, unit: 1.0, range: [0.0, 1.0] };
        for target in [0, -1, 1, i64::from(i32::MIN), 1 << 40, -(1 << 40)] {
            let mut bytes = Vec::new();
            Numbers::put(&NumberItem::new(3, target, 7, 2), &mut bytes);
            assert_eq!(bytes.len(), Numbers::ITEM_BYTES);
            let mut cell = [0; 3];
            numbers.add(&mut cell, &Numbers::take(&bytes, 9));
            assert_eq!((cell[0] as i64, cell[1], cell[2]), (7 * target, 7, 2));
        }
        let mut bytes = Vec::new();
        Classes::put(&ClassItem::new(3, 999, 1 << 30, 15), &mut bytes);
        assert_eq!(bytes.len(), Classes::ITEM_BYTES);
        let item = Classes::take(&bytes, 1);
        assert_eq!((item.row, item.class, item.weight, item.draws), (1, 999, 1 << 30, 15));
        let mut bytes = Vec::new();
        Binary::put(&BinaryItem::new(3, 1, 15), &mut bytes);
        assert_eq!((bytes.len(), Binary::take(&bytes, 4).word), (Binary::ITEM_BYTES, 31));
    }
}
