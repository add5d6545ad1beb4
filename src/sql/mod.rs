//! SQL text: statements, directives, checksums. Pure.
