pub mod accounts;
pub mod app;
pub mod mix;
pub mod oracle;
pub mod run;
pub mod shape;
pub mod store;
pub mod world;
