//! Strings and lists of any length, which lie in the heap of their file: read past the HDF5 library, which takes whatever a damaged
//! heap says.
//!
//! In: descriptors. Out: the bytes they lead to, or what is wrong with them; or whether the library may follow them. An element of a dataset is a descriptor: a length,
//! the address of a *collection*, and the number of an *object* in it. A collection is a run of objects, each after a header with
//! its number and length. The library packs small strings into collections of up to 64 KiB; a longer string has one alone.
//! Nothing in the file is trusted: every place is compared with the ends of the collection and of the file, and what is
//! allocated is bounded by what the file holds.
//!
//! Source: *HDF5 File Format Specification Version 3.0*, III.E (global heap), IV.A.2.d (class 9, variable-length).

use super::index::{Found, Sizes};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// A collection is read whole up to this size: larger ones hold one long string, and are looked through in the file.
const WHOLE_BYTES: u64 = 1 << 16;
/// What is read of a collection first: most are no larger.
const FIRST_BYTES: u64 = 1 << 12;
/// The library makes no smaller one, and reads beyond the end of one.
const LEAST_BYTES: u64 = 1 << 12;
/// What a collection takes while it is kept, at most: its bytes, and the places of as many objects as fit.
const KEPT_BYTES: u64 = WHOLE_BYTES + (WHOLE_BYTES / 16) * size_of::<Object>() as u64;
const BEYOND: &str = "its descriptor leads out of the file: the file is damaged";
const NO_COLLECTION: &str = "its descriptor leads to no collection of the file's heap: the file is damaged";
const NO_OBJECT: &str = "its descriptor names an object that the file's heap does not have: the file is damaged";
const OTHER_LENGTH: &str = "it has another length in the file's heap than its descriptor says: the file is damaged";
const BAD_OBJECTS: &str = "the objects of its collection in the file's heap do not fit into it: the file is damaged";
const TOO_MANY_OBJECTS: &str = "large collections of the file's heap hold very many objects: the file is damaged";
const NOWHERE: &str = "it has a length, but its descriptor leads nowhere: the file is damaged";
const ENDLESS: &str = "the objects of its collection in the file's heap do not follow one another: the file is damaged";
const TOO_LONG: &str =
    "the strings so far are longer than all of the file: many rows share a long one, or the file is damaged";
const UNREADABLE: &str = "its bytes cannot be read from the file";

/// The heap of one file.
pub(crate) struct Heap {
    file: Arc<File>,
    file_bytes: u64,
    sizes: Sizes,
    /// Of collections, between reads too.
    keep_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By address.
    collections: BTreeMap<u64, Found<Collection>>,
    n_bytes: u64,
    /// The large collection that was looked through last.
    looked_through: Option<(u64, Objects)>,
}

struct Collection {
    n_bytes: u64,
    /// None: too large to be kept.
    whole: Option<(Vec<u8>, Objects)>,
}

/// The objects of a collection.
struct Objects {
    /// By number.
    all: Vec<Object>,
    /// The library finds the same, and comes to an end.
    are_sound: bool,
}

#[derive(Clone, Copy)]
struct Object {
    number: u16,
    /// From the begin of the collection.
    begin: u64,
    n_bytes: u64,
}

/// What one read may still take: rows of a damaged file can share a long string, or have many steps to theirs.
pub(crate) struct Allowance {
    text_bytes: u64,
    /// Objects of large collections to be passed.
    steps: u64,
}

#[derive(Clone, Copy)]
struct Descriptor {
    n_bytes: u32,
    /// From the base.
    address: u64,
    number: u32,
}

impl Descriptor {
    /// Of an empty string, or of one that was never written.
    fn is_nothing(self) -> bool {
        self.n_bytes == 0 || self.address == 0
    }
}

impl Kept {
    fn keep(&mut self, address: u64, collection: Found<Collection>) {
        let whole = collection.as_ref().ok().and_then(|collection| collection.whole.as_ref());
        self.n_bytes += 64; // of the map
        self.n_bytes += whole.map_or(0, |(bytes, objects)| (bytes.len() + size_of_val(&objects.all[..])) as u64);
        self.collections.insert(address, collection);
    }
}

impl Heap {
    /// * `file`: open to read, of `file_bytes` when it was looked at.
    /// * `keep_bytes`: what collections may take, about.
    pub(crate) fn new(file: Arc<File>, file_bytes: u64, sizes: Sizes, keep_bytes: u64) -> Heap {
        Heap { file, file_bytes, sizes, keep_bytes, kept: Mutex::default() }
    }

    /// The same, with another room for collections.
    #[cfg(test)]
    pub(crate) fn with_room(self, keep_bytes: u64) -> Heap {
        Heap { keep_bytes, kept: Mutex::default(), ..self }
    }

    pub(crate) fn descriptor_bytes(&self) -> usize {
        self.sizes.descriptor_bytes()
    }

    /// For `n` strings: different ones are together no longer than the file, and 64 bytes each may be shared.
    pub(crate) fn allowance(&self, n: u64) -> Allowance {
        let for_all = n.saturating_mul(64);
        Allowance { text_bytes: self.file_bytes.saturating_add(for_all), steps: for_all.saturating_add(1 << 20) }
    }

    /// Calls `each` with the number and the bytes of every string of `descriptors`, in order, or with what is wrong with it; stops
    /// at an error of its. Not collective; rayon over collections, each of which is read once if they fit into what is kept.
    pub(crate) fn read<E>(
        &self,
        descriptors: &[u8],
        allowance: &mut Allowance,
        mut each: impl FnMut(usize, Found<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptors = descriptors.chunks_exact(self.descriptor_bytes());
        let mut long = Vec::new();
        let mut at = 0;
        while at < descriptors.len() {
            let ready = self.load(&mut kept, descriptors.clone().skip(at));
            for (index, descriptor) in descriptors.clone().enumerate().skip(at).take(ready) {
                each(index, self.text(&mut kept, self.descriptor(descriptor), allowance, &mut long))?;
            }
            at += ready;
        }
        Ok(())
    }

    fn descriptor(&self, bytes: &[u8]) -> Descriptor {
        let (n_bytes, rest) = bytes.split_at(4);
        let (address, number) = rest.split_at(self.sizes.offset_bytes);
        Descriptor { n_bytes: number_of(n_bytes) as u32, address: number_of(address), number: number_of(number) as u32 }
    }

    /// Loads the collections of the next descriptors, as many as may be kept. Returns for how many descriptors they are there now.
    fn load<'d>(&self, kept: &mut Kept, descriptors: impl Iterator<Item = &'d [u8]>) -> usize {
        if kept.n_bytes > self.keep_bytes / 2 {
            *kept = Kept { looked_through: kept.looked_through.take(), ..Kept::default() };
        }
        let most = (self.keep_bytes / 2 / KEPT_BYTES).max(1) as usize;
        let (mut new, mut is_new) = (Vec::new(), BTreeSet::new());
        let mut ready = 0;
        let mut last = None;
        for descriptor in descriptors.map(|bytes| self.descriptor(bytes)) {
            let address = descriptor.address;
            if last != Some(address) && !descriptor.is_nothing() {
                if !kept.collections.contains_key(&address) && !is_new.contains(&address) {
                    if new.len() == most {
                        break;
                    }
                    new.push(address);
                    is_new.insert(address);
                }
                last = Some(address);
            }
            ready += 1;
        }
        let loaded: Vec<Found<Collection>> = new.par_iter().map(|&address| self.collection(address)).collect();
        new.into_iter().zip(loaded).for_each(|(address, collection)| kept.keep(address, collection));
        ready
    }

    /// The bytes of a string up to its first zero byte, as they are to whoever reads C strings; of a large collection in `long`.
    fn text<'t>(
        &self,
        kept: &'t mut Kept,
        descriptor: Descriptor,
        allowance: &mut Allowance,
        long: &'t mut Vec<u8>,
    ) -> Found<&'t [u8]> {
        if descriptor.is_nothing() {
            return Ok(&[]);
        }
        let (collection, objects) = self.objects_at(kept, descriptor.address, allowance)?;
        let object = find(&objects.all, descriptor.number).ok_or(NO_OBJECT)?;
        if object.n_bytes != u64::from(descriptor.n_bytes) {
            return Err(OTHER_LENGTH);
        }
        allowance.text_bytes = allowance.text_bytes.checked_sub(object.n_bytes).ok_or(TOO_LONG)?;
        let text = match &collection.whole {
            Some((bytes, _)) => {
                let place = object.begin as usize..(object.begin + object.n_bytes) as usize;
                bytes.get(place).ok_or(BAD_OBJECTS)?
            }
            None => {
                long.clear();
                long.resize(descriptor.n_bytes as usize, 0);
                self.pread(descriptor.address, object.begin, long)?;
                &long[..]
            }
        };
        Ok(memchr::memchr(0, text).map_or(text, |end| &text[..end]))
    }

    /// Whether the library may follow this descriptor of values of `element_bytes` each: it finds as many bytes as it makes room for,
    /// and nothing on its way leads it astray. Returns these bytes if they are `wanted`.
    pub(crate) fn follow(
        &self,
        descriptor: &[u8],
        element_bytes: u64,
        wanted: bool,
        allowance: &mut Allowance,
    ) -> Found<Vec<u8>> {
        let descriptor = self.descriptor(descriptor);
        // The library looks at no length where there is no address.
        if descriptor.address == 0 {
            return Ok(Vec::new());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.collections.contains_key(&descriptor.address) {
            if kept.n_bytes > self.keep_bytes / 2 {
                *kept = Kept { looked_through: kept.looked_through.take(), ..Kept::default() };
            }
            let collection = self.collection(descriptor.address);
            kept.keep(descriptor.address, collection);
        }
        let (collection, objects) = self.objects_at(&mut kept, descriptor.address, allowance)?;
        if !objects.are_sound || collection.n_bytes < LEAST_BYTES {
            return Err(ENDLESS);
        }
        let object = find(&objects.all, descriptor.number).ok_or(NO_OBJECT)?;
        if u64::from(descriptor.n_bytes).checked_mul(element_bytes) != Some(object.n_bytes) {
            return Err(OTHER_LENGTH);
        }
        allowance.text_bytes = allowance.text_bytes.checked_sub(object.n_bytes).ok_or(TOO_LONG)?;
        let mut bytes = Vec::new();
        if wanted {
            bytes.resize(object.n_bytes as usize, 0);
            self.pread(descriptor.address, object.begin, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// A collection that was loaded, and the objects of it.
    fn objects_at<'k>(
        &self,
        kept: &'k mut Kept,
        address: u64,
        allowance: &mut Allowance,
    ) -> Found<(&'k Collection, &'k Objects)> {
        let Kept { collections, looked_through, .. } = kept;
        let collection = collections.get(&address).ok_or(NO_COLLECTION)?.as_ref().map_err(|why| *why)?;
        let objects = match &collection.whole {
            Some((_, objects)) => objects,
            None => {
                if looked_through.as_ref().is_none_or(|(last, _)| *last != address) {
                    let objects = self.look_through(address, collection.n_bytes, &mut allowance.steps)?;
                    *looked_through = Some((address, objects));
                }
                &looked_through.as_ref().ok_or(NO_COLLECTION)?.1
            }
        };
        Ok((collection, objects))
    }

    /// The collection at an address.
    fn collection(&self, address: u64) -> Found<Collection> {
        if address == u64::MAX >> (64 - 8 * self.sizes.offset_bytes) {
            return Err(NOWHERE);
        }
        let first = address.checked_add(self.sizes.base).and_then(|first| self.file_bytes.checked_sub(first));
        let left = first.ok_or(BEYOND)?;
        let mut bytes = vec![0; left.min(FIRST_BYTES) as usize];
        self.pread(address, 0, &mut bytes)?;
        let n_bytes = match bytes.get(8..8 + self.sizes.length_bytes) {
            Some(length) if bytes.starts_with(b"GCOL\x01") => number_of(length),
            _ => return Err(NO_COLLECTION),
        };
        if n_bytes < self.header_bytes() {
            return Err(BAD_OBJECTS);
        }
        if n_bytes > left {
            return Err(
                "its collection in the file's heap ends beyond the end of the file: the file is truncated or damaged",
            );
        }
        if n_bytes > WHOLE_BYTES {
            return Ok(Collection { n_bytes, whole: None });
        }
        let n_read = bytes.len();
        bytes.resize(n_bytes as usize, 0);
        if bytes.len() > n_read {
            self.pread(address, n_read as u64, &mut bytes[n_read..])?;
        }
        let n_header = self.header_bytes() as usize;
        let header = |begin: u64, into: &mut [u8; 16]| {
            into[..n_header].copy_from_slice(&bytes[begin as usize..begin as usize + n_header]);
            Ok(())
        };
        let objects = self.objects(n_bytes, &mut u64::MAX.clone(), header)?;
        Ok(Collection { n_bytes, whole: Some((bytes, objects)) })
    }

    fn look_through(&self, address: u64, n_bytes: u64, steps: &mut u64) -> Found<Objects> {
        let n_header = self.header_bytes() as usize;
        self.objects(n_bytes, steps, |begin, into| self.pread(address, begin, &mut into[..n_header]))
    }

    /// The objects of a collection, by number; `header` reads what stands before one.
    fn objects(
        &self,
        n_bytes: u64,
        steps: &mut u64,
        header: impl Fn(u64, &mut [u8; 16]) -> Found<()>,
    ) -> Found<Objects> {
        let n_header = self.header_bytes();
        let (mut found, mut are_sound) = (Vec::<Object>::new(), true);
        let mut at = n_header; // as long as that of an object
        // What is too short for a header is free.
        while n_bytes - at >= n_header {
            *steps = steps.checked_sub(1).ok_or(TOO_MANY_OBJECTS)?;
            let mut bytes = [0; 16];
            header(at, &mut bytes)?;
            let number = u16::from_le_bytes([bytes[0], bytes[1]]);
            let n_object = number_of(&bytes[8..8 + self.sizes.length_bytes]);
            if number == 0 {
                // Free space, its header counted too.
                if n_object < n_header || n_object > n_bytes - at {
                    are_sound = false;
                    break;
                }
                at += n_object;
                continue;
            }
            let begin = at + n_header;
            if n_object > n_bytes - begin || found.len() > usize::from(u16::MAX) {
                return Err(BAD_OBJECTS);
            }
            found.push(Object { number, begin, n_bytes: n_object });
            at = (begin + n_object.next_multiple_of(8)).min(n_bytes);
        }
        found.sort_by_key(|object| object.number);
        are_sound &= found.is_sorted_by(|one, next| one.number < next.number);
        Ok(Objects { all: found, are_sound })
    }

    /// Of a collection and of an object in it: signature or number, count and length, on to a multiple of 8.
    fn header_bytes(&self) -> u64 {
        (8 + self.sizes.length_bytes as u64).next_multiple_of(8)
    }

    fn pread(&self, address: u64, begin: u64, into: &mut [u8]) -> Found<()> {
        let at = address.checked_add(self.sizes.base).and_then(|first| first.checked_add(begin)).ok_or(BEYOND)?;
        self.file.read_exact_at(into, at).map_err(|_| UNREADABLE)
    }
}

/// The object of this number. They are numbered from 1 on, mostly without gaps.
fn find(objects: &[Object], number: u32) -> Option<Object> {
    let guess = objects.get((number as usize).wrapping_sub(1)).filter(|object| u32::from(object.number) == number);
    guess.copied().or_else(|| {
        let at = objects.binary_search_by_key(&number, |object| object.number.into()).ok()?;
        Some(objects[at])
    })
}

/// Little-endian, of at most 8 bytes.
fn number_of(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(wide)
}
