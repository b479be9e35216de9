//! The model's datagrams in fragments. Time stands still: none is given up, and there is room for all.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use super::{
    flows::Tuple,
    parse::{DatagramId, Piece},
};

/// A datagram whose first fragment has been sent on.
#[derive(Clone, Debug)]
struct Datagram {
    tuple: Tuple,
    /// Units of eight bytes that have come.
    seen: BTreeSet<usize>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fragments(HashMap<DatagramId, Datagram>);

impl Fragments {
    /// A first fragment was sent on: its datagram begins anew.
    pub(super) fn begin(&mut self, piece: &Piece, tuple: Tuple) {
        self.0.insert(piece.of, Datagram { tuple, seen: units(piece).collect() });
    }

    /// A first fragment was not sent on.
    pub(super) fn forget(&mut self, piece: &Piece) {
        self.0.remove(&piece.of);
    }

    /// The 5-tuple of a fragment's datagram.
    pub(super) fn tuple(&self, piece: &Piece) -> Option<Tuple> {
        self.0.get(&piece.of).map(|datagram| datagram.tuple)
    }

    /// Takes note of a fragment of a datagram that is known; whether a part of it has come before.
    pub(super) fn repeats(&mut self, piece: &Piece) -> bool {
        let Some(datagram) = self.0.get_mut(&piece.of) else { return false };
        units(piece).filter(|unit| !datagram.seen.insert(*unit)).count() > 0
    }
}

fn units(piece: &Piece) -> Range<usize> {
    piece.offset / 8..(piece.offset + piece.length).div_ceil(8)
}
