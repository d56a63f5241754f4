//! The half that acts: asynchronous, outside of every transaction. It runs effects, asks
//! the forge, and judges what failed. What comes of it goes back into the inbox.

pub mod authority;
pub mod comments;
pub mod failure;
pub mod look;
