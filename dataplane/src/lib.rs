pub mod config_file;
pub mod offload;
pub mod uapi;
