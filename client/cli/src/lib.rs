//! The command-line tool: one file per noun.
