//! How a section of keys is written down once: names, types, defaults.

use super::setting::Setting;

/// A key or a section of keys, reached by its dotted path.
pub trait Node {
    /// Adds every key beneath to `out`.
    fn visit<'a>(&'a mut self, path: &str, out: &mut Vec<(String, &'a mut dyn Setting)>);
}

/// The path of `name` beneath `path`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Defines a section: a struct whose fields are the keys, with their defaults.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $key:ident: $kind:ty $(= $default:expr)?,)* }) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            $($(#[$fdoc])* pub $key: $kind,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: section!(@default $($default)?),)* }
            }
        }

        impl $crate::config::section::Node for $name {
            fn visit<'a>(
                &'a mut self,
                path: &str,
                out: &mut Vec<(String, &'a mut dyn $crate::config::setting::Setting)>,
            ) {
                $($crate::config::section::Node::visit(
                    &mut self.$key,
                    &$crate::config::section::join(path, stringify!($key)),
                    out,
                );)*
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

/// Defines a closed set of words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $crate::config::setting::Setting for $name {
            fn set(&mut self, raw: $crate::config::setting::Raw<'_>) -> Result<(), String> {
                let text = raw.text()?;
                *self = match text.as_str() {
                    "" => return Ok(()),
                    $($word $(| $alias)* => Self::$variant,)*
                    other => {
                        let words = [$($word),*].join(", ");
                        return Err(format!("`{other}` is not one of: {words}"));
                    }
                };
                Ok(())
            }

            fn show(&self) -> serde_json::Value {
                match self {
                    $(Self::$variant => $word.into(),)*
                }
            }
        }

        impl $crate::config::section::Node for $name {
            fn visit<'a>(
                &'a mut self,
                path: &str,
                out: &mut Vec<(String, &'a mut dyn $crate::config::setting::Setting)>,
            ) {
                out.push((path.to_owned(), self));
            }
        }
    };
}

pub(super) use {choice, section};
