//! The front door: HTTP in, domain calls down, answers out. No decisions.
