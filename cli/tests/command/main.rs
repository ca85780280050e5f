//! The command as people and programs meet it: real processes, their exit codes, their output, their files.

#![cfg(unix)]

mod common;
mod demo;
mod detach;
mod doctor;
mod forgetting;
mod keygen;
mod reading;
mod refusals;
mod sync;
