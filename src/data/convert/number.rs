//! Numbers as they come: what a field says, what a column holds, and the narrowest type that holds all of it exactly.

use crate::data::hdf5::write::Cell;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Number {
    Missing,
    /// Of at most 64 bits, signed or not.
    Whole(i128),
    /// Not NaN.
    Float(f64),
}

/// A number of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) number: Number,
    /// With a point or an exponent.
    pub(super) as_float: bool,
    /// A whole number of more than 64 bits, rounded.
    pub(super) too_long: bool,
}

impl Number {
    pub(super) fn of_f64(value: f64) -> Number {
        if value.is_nan() { Number::Missing } else { Number::Float(value) }
    }

    pub(super) fn is_infinite(self) -> bool {
        matches!(self, Number::Float(value) if value.is_infinite())
    }

    /// The whole number that it is, if it is one of at most 64 bits. −0 is not: no integer holds its sign.
    fn whole(self) -> Option<i128> {
        match self {
            Number::Whole(value) => Some(value),
            Number::Float(value) => {
                let is_whole = value.abs() < 9e18 && value as i64 as f64 == value;
                (is_whole && (value != 0.0 || value.is_sign_positive())).then_some(value as i64 as i128)
            }
            Number::Missing => None,
        }
    }
}

/// What a field says. `?`, `NA`, `N/A`, `null`, `None`, `NaN` and nothing are missing. None: not a number.
pub(super) fn parse(field: &[u8]) -> Option<Written> {
    let field = field.trim_ascii();
    let plain = |number| Some(Written { number, as_float: false, too_long: false });
    let Some(&first) = field.first() else { return plain(Number::Missing) };
    let digits = if matches!(first, b'-' | b'+') { &field[1..] } else { field };
    if !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return plain(Number::Whole(i128::from(if first == b'-' { -value } else { value })));
    }
    if first.is_ascii_alphabetic() || first == b'?' || first == b'<' {
        match field {
            b"?" | b"NA" | b"N/A" | b"n/a" | b"<NA>" | b"null" | b"NULL" | b"None" => return plain(Number::Missing),
            _ if matches!(first, b'n' | b'N' | b'i' | b'I') => {}
            _ => return None,
        }
    }
    let text = std::str::from_utf8(field).ok()?;
    if let Ok(value) = text.parse::<i128>()
        && (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value)
    {
        return plain(Number::Whole(value));
    }
    let value = text.parse::<f64>().ok()?;
    let too_long = digits.iter().all(u8::is_ascii_digit);
    Some(Written { number: Number::of_f64(value), as_float: !value.is_nan() && !too_long, too_long })
}

/// What is known of some numbers; merges.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Seen {
    pub(super) missing: bool,
    /// One came as a float, be its value whole or not.
    pub(super) as_float: bool,
    /// One has a fraction, or is beyond 64 bits.
    fraction: bool,
    /// Of the whole numbers; `min > max` where there is none.
    min: i128,
    max: i128,
    not_f32: bool,
    not_f64: bool,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            missing: false,
            as_float: false,
            fraction: false,
            min: i128::MAX,
            max: i128::MIN,
            not_f32: false,
            not_f64: false,
        }
    }
}

impl Seen {
    pub(super) fn add(&mut self, number: Number) {
        match number {
            Number::Missing => self.missing = true,
            Number::Whole(value) => {
                self.include(value);
                if value.unsigned_abs() > 1 << 24 {
                    self.not_f32 |= value as f32 as i128 != value;
                    self.not_f64 |= value as f64 as i128 != value;
                }
            }
            Number::Float(value) => {
                self.as_float = true;
                self.not_f32 |= f64::from(value as f32) != value;
                match number.whole() {
                    Some(value) => self.include(value),
                    None => self.fraction = true,
                }
            }
        }
    }

    /// A whole number of more than 64 bits, which only a float can hold.
    pub(super) fn add_long(&mut self, number: Number) {
        let before = self.as_float;
        self.add(number);
        self.as_float = before;
    }

    fn include(&mut self, value: i128) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    pub(super) fn merge(&mut self, other: &Seen) {
        self.missing |= other.missing;
        self.as_float |= other.as_float;
        self.fraction |= other.fraction;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.not_f32 |= other.not_f32;
        self.not_f64 |= other.not_f64;
    }

    /// A column with a float is one of floats: its whole numbers are rounded like its other numbers.
    pub(super) fn settled(self) -> Seen {
        Seen { not_f64: self.not_f64 && !self.as_float, ..self }
    }

    /// Whole numbers that float64 does not hold.
    pub(super) fn is_wide(&self) -> bool {
        self.not_f64
    }

    /// The narrowest type that holds every value exactly. None: there is none.
    pub(super) fn narrowest(&self) -> Option<Cell> {
        if self.missing || self.fraction || self.min > self.max {
            return self.float();
        }
        let small = [Cell::U8, Cell::I8, Cell::U16, Cell::I16].into_iter().find(|&cell| self.fits(cell));
        // An integer as wide as float32 is read as float64: the last choice.
        small.or(self.float().filter(|&cell| cell == Cell::F32)).or_else(|| self.integer())
    }

    /// The narrowest float that holds every value exactly.
    pub(super) fn float(&self) -> Option<Cell> {
        match (self.not_f32, self.not_f64) {
            (false, _) => Some(Cell::F32),
            (true, false) => Some(Cell::F64),
            (true, true) => None,
        }
    }

    /// The narrowest type that keeps what kind of numbers they are.
    pub(super) fn narrowest_of_kind(&self) -> Option<Cell> {
        match self.as_float || self.missing || self.min > self.max {
            true => self.float(),
            false => self.integer(),
        }
    }

    /// The narrowest integer for the whole numbers.
    fn integer(&self) -> Option<Cell> {
        let cells = [Cell::U8, Cell::I8, Cell::U16, Cell::I16, Cell::I32, Cell::U32, Cell::I64, Cell::U64];
        cells.into_iter().find(|&cell| self.fits(cell))
    }

    fn fits(&self, cell: Cell) -> bool {
        let (low, high): (i128, i128) = match cell {
            Cell::U8 => (0, u8::MAX.into()),
            Cell::I8 => (i8::MIN.into(), i8::MAX.into()),
            Cell::U16 => (0, u16::MAX.into()),
            Cell::I16 => (i16::MIN.into(), i16::MAX.into()),
            Cell::U32 => (0, u32::MAX.into()),
            Cell::I32 => (i32::MIN.into(), i32::MAX.into()),
            Cell::U64 => (0, u64::MAX.into()),
            Cell::I64 => (i64::MIN.into(), i64::MAX.into()),
            _ => return false,
        };
        low <= self.min && self.max <= high
    }

    /// For whole numbers beyond 2⁵³ with missing ones among them: the integer that holds them, and a value that none of them has,
    /// not even rounded to float64.
    pub(super) fn with_fill(&self) -> Option<(Cell, i128)> {
        let (low, high) = (i128::from(i64::MIN), i128::from(u64::MAX));
        match self.integer()? {
            Cell::U64 => (self.max < high - 4096).then_some((Cell::U64, high)),
            _ => (self.min > low + 4096).then_some((Cell::I64, low)),
        }
    }
}

/// Appends a number as an element of `cell`. False: it has no place in it.
pub(super) fn put(cell: Cell, fill: Option<i128>, number: Number, into: &mut Vec<u8>) -> bool {
    macro_rules! float {
        ($float:ty) => {{
            let value = match number {
                Number::Missing => <$float>::NAN,
                Number::Whole(value) => value as $float,
                Number::Float(value) => value as $float,
            };
            into.extend_from_slice(&value.to_ne_bytes());
            true
        }};
    }
    macro_rules! integer {
        ($integer:ty) => {
            match number.whole().or(fill.filter(|_| number == Number::Missing)).map(<$integer>::try_from) {
                Some(Ok(value)) => {
                    into.extend_from_slice(&value.to_ne_bytes());
                    true
                }
                _ => false,
            }
        };
    }
    match cell {
        Cell::F32 => float!(f32),
        Cell::F64 => float!(f64),
        Cell::U8 | Cell::Bool => integer!(u8),
        Cell::I8 => integer!(i8),
        Cell::U16 => integer!(u16),
        Cell::I16 => integer!(i16),
        Cell::U32 => integer!(u32),
        Cell::I32 => integer!(i32),
        Cell::U64 => integer!(u64),
        Cell::I64 => integer!(i64),
        Cell::Text(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(fields: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for field in fields {
            let written = parse(field.as_bytes()).unwrap();
            seen.add(written.number);
            seen.as_float |= written.as_float;
        }
        seen.settled()
    }

    #[test]
    fn missing_values_have_many_spellings() {
        for text in ["", " ", "?", "NA", "nan", "NaN", "null", "None", "-nan", "<NA>"] {
            assert_eq!(parse(text.as_bytes()).unwrap().number, Number::Missing, "'{text}'");
        }
        for text in ["tcp", "1,5", "0x10", "--1", "1_0", "-", "+", ".", "e5", "north", "\u{b2}", "1 2"] {
            assert_eq!(parse(text.as_bytes()), None, "'{text}'");
        }
        assert!(parse(b"1e400").unwrap().number.is_infinite());
        assert!(parse(b"-inf").unwrap().number.is_infinite());
    }

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them() {
        for text in ["0", "-0", "+7", "007", "999999999999999999", "-9223372036854775808", "18446744073709551615"] {
            let written = parse(text.as_bytes()).unwrap();
            assert_eq!(written.number, Number::Whole(text.parse().unwrap()), "{text}");
            assert!(!written.as_float && !written.too_long);
        }
        for text in ["1.", ".5", "-0.0", "1e3", " 2.5E-3 ", "1.7976931348623157e308", "0.1"] {
            let written = parse(text.as_bytes()).unwrap();
            assert_eq!(written.number, Number::Float(text.trim().parse().unwrap()), "{text}");
            assert!(written.as_float && !written.too_long);
        }
        for text in ["18446744073709551616", "-9223372036854775809", &"9".repeat(60)] {
            assert!(parse(text.as_bytes()).unwrap().too_long, "{text}");
        }
    }

    #[test]
    fn the_narrowest_type_is_exact() {
        for (fields, cell) in [
            (&["0", "255"][..], Cell::U8),
            (&["1.0", "3.0"], Cell::U8),
            (&["-1", "127"], Cell::I8),
            (&["-1", "128"], Cell::I16),
            (&["65535"], Cell::U16),
            (&["65536"], Cell::F32),
            (&["16777217"], Cell::I32),
            (&["4294967295"], Cell::U32),
            (&["4294967296"], Cell::F32),
            (&["4294967297"], Cell::I64),
            (&["9223372036854775809"], Cell::U64),
            (&["0.5", "1"], Cell::F32),
            (&["0.1", "1"], Cell::F64),
            (&["1", ""], Cell::F32),
            (&["16777217", "?"], Cell::F64),
            (&["", ""], Cell::F32),
            (&["-0.0"], Cell::F32),
            (&["1e300"], Cell::F64),
            (&["9007199254740993", "0.5"], Cell::F64),
        ] {
            assert_eq!(seen(fields).narrowest(), Some(cell), "{fields:?}");
        }
        for fields in [&["9007199254740993", ""][..], &["-1", "18446744073709551615"]] {
            assert_eq!(seen(fields).narrowest(), None, "{fields:?}");
        }
        assert_eq!(seen(&["9007199254740993", ""]).with_fill(), Some((Cell::I64, i64::MIN.into())));
        assert_eq!(seen(&["18446744073709551615", ""]).with_fill(), None);
        assert_eq!(seen(&["1.0", "2.0"]).narrowest_of_kind(), Some(Cell::F32));
        assert_eq!(seen(&["1", "70000"]).narrowest_of_kind(), Some(Cell::I32));
    }

    #[test]
    fn merging_is_seeing_all() {
        let fields = ["", "1", "0.5", "-70000", "16777217", "9007199254740993"];
        for cut in 0..=fields.len() {
            let mut merged = seen(&fields[..cut]);
            merged.merge(&seen(&fields[cut..]));
            let all = seen(&fields);
            assert_eq!((merged.min, merged.max, merged.missing, merged.fraction), (all.min, all.max, true, true));
            let mut none = Seen::default();
            none.merge(&Seen::default());
            assert_eq!(none, Seen::default());
            none.merge(&all);
            assert_eq!(none, all);
        }
    }

    #[test]
    fn a_number_has_its_place_or_none() {
        let mut bytes = Vec::new();
        assert!(put(Cell::I16, None, Number::Float(-3.0), &mut bytes));
        assert!(put(Cell::F32, None, Number::Missing, &mut bytes));
        assert!(put(Cell::I64, Some(7), Number::Missing, &mut bytes));
        assert_eq!(bytes[..2], (-3i16).to_ne_bytes());
        assert!(f32::from_ne_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]).is_nan());
        assert_eq!(bytes[6..], 7i64.to_ne_bytes());
        for (cell, number) in [
            (Cell::U8, Number::Whole(256)),
            (Cell::U8, Number::Missing),
            (Cell::I32, Number::Float(0.5)),
            (Cell::Text(4), Number::Whole(1)),
        ] {
            assert!(!put(cell, None, number, &mut bytes), "{cell:?} {number:?}");
        }
    }
}
