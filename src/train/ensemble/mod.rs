//! # train::ensemble — several models trained side by side, combined into one
//!
//! In:    any table, and the settings of the members.
//! Out:   one [`Model`](crate::model::Model) that holds them all.
//! Talks: deals members to groups of ranks; each member's trainer talks within its group.
//! Never: how a member is trained: any trainer of this room does, on a [`View`](view::View) of the table.

pub mod view;
