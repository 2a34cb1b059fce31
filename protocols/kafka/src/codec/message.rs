//! The language that messages are described in.

/// Describes structs of the protocol, one line a field:
///
/// ```text
/// Name {
///     field: Type [versions] tag 0 null [versions] = default;
/// }
/// ```
///
/// `versions` is a Rust range; outside it the field is not sent and has its default. `tag` makes it a tagged field; tagged
/// fields stand in the order of their tags. A field of a type `Option<_>` may be null in all its versions unless `null`
/// names those where it may. Makes the struct, its `Default`, and its reading and writing.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        $name:ident {
            $( $field:ident : $type:ty [$versions:expr] $(tag $tag:literal)? $(null [$null:expr])? $(= $default:expr)? ; )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $( pub $field: $type, )* }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: message!(@default $($default)?), )* }
            }
        }

        impl $crate::codec::wire::Wire for $name {
            fn read(
                reader: &mut $crate::codec::reader::Reader,
            ) -> Result<Self, $crate::codec::reader::Malformed> {
                let mut it = Self::default();
                $( message!(@read it reader $field [$versions] $(tag $tag)? $(null [$null])?); )*
                if reader.form().flexible {
                    reader.tagged(|_reader, _tag| {
                        $( message!(@read_tagged it _reader _tag $field [$versions] $(tag $tag)?); )*
                        Ok(false)
                    })?;
                }
                Ok(it)
            }

            fn write(&self, writer: &mut $crate::codec::writer::Writer) {
                let form = writer.form();
                $( message!(@write self writer form $field [$versions] $(tag $tag)? $(null [$null])?); )*
                if form.flexible {
                    let tags = 0u32 $( + message!(@tags self form $field [$versions] $(tag $tag)? $(= $default)?) )*;
                    writer.uvarint(tags);
                    $( message!(@write_tagged self writer form $field [$versions] $(tag $tag)? $(= $default)?); )*
                }
            }

            fn least_bytes(form: $crate::codec::form::Form) -> usize {
                usize::from(form.flexible) $( + message!(@least form $type, [$versions] $(tag $tag)?) )*
            }

            #[cfg(test)]
            fn sample(dice: &mut $crate::codec::dice::Dice, form: $crate::codec::form::Form) -> Self {
                let mut it = Self::default();
                $( message!(@sample it dice form $field [$versions] $(null [$null])?); )*
                it
            }
        }

        impl $crate::codec::wire::Nullable for $name {
            fn read_nullable(
                reader: &mut $crate::codec::reader::Reader,
            ) -> Result<Option<Self>, $crate::codec::reader::Malformed> {
                let marker: i8 = $crate::codec::wire::Wire::read(reader)?;
                if marker < 0 { Ok(None) } else { $crate::codec::wire::Wire::read(reader).map(Some) }
            }

            fn write_nullable(value: Option<&Self>, writer: &mut $crate::codec::writer::Writer) {
                let marker = if value.is_some() { 1i8 } else { -1 };
                $crate::codec::wire::Wire::write(&marker, writer);
                if let Some(value) = value {
                    $crate::codec::wire::Wire::write(value, writer);
                }
            }

            fn least_nullable_bytes(_: $crate::codec::form::Form) -> usize {
                1
            }
        }
    )* };

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@read $it:ident $reader:ident $field:ident [$versions:expr] tag $tag:literal) => {};
    (@read $it:ident $reader:ident $field:ident [$versions:expr]) => {
        if $reader.form().has($versions) {
            $it.$field = $crate::codec::wire::Wire::read($reader)?;
        }
    };
    (@read $it:ident $reader:ident $field:ident [$versions:expr] null [$null:expr]) => {
        if $reader.form().has($versions) {
            $it.$field = $crate::codec::wire::Wire::read($reader)?;
            if $crate::codec::wire::Wire::is_null(&$it.$field) && !$reader.form().has($null) {
                return Err($reader.malformed("null in a version without it"));
            }
        }
    };

    (@read_tagged $it:ident $reader:ident $found:ident $field:ident [$versions:expr]) => {};
    (@read_tagged $it:ident $reader:ident $found:ident $field:ident [$versions:expr] tag $tag:literal) => {
        if $found == $tag && $reader.form().has($versions) {
            $it.$field = $crate::codec::wire::Wire::read($reader)?;
            return Ok(true);
        }
    };

    (@write $it:ident $writer:ident $form:ident $field:ident [$versions:expr] tag $tag:literal) => {};
    (@write $it:ident $writer:ident $form:ident $field:ident [$versions:expr]) => {
        if $form.has($versions) {
            $crate::codec::wire::Wire::write(&$it.$field, $writer);
        }
    };
    (@write $it:ident $writer:ident $form:ident $field:ident [$versions:expr] null [$null:expr]) => {
        if $form.has($versions) {
            if $form.has($null) {
                $crate::codec::wire::Wire::write(&$it.$field, $writer);
            } else {
                $crate::codec::wire::Wire::write_present(&$it.$field, $writer);
            }
        }
    };

    (@tags $it:ident $form:ident $field:ident [$versions:expr] $(= $default:expr)?) => { 0 };
    (@tags $it:ident $form:ident $field:ident [$versions:expr] tag $tag:literal $(= $default:expr)?) => {
        u32::from($form.has($versions) && $crate::codec::message::differ(&$it.$field, &message!(@default $($default)?)))
    };

    (@write_tagged $it:ident $writer:ident $form:ident $field:ident [$versions:expr] $(= $default:expr)?) => {};
    (@write_tagged $it:ident $writer:ident $form:ident $field:ident [$versions:expr] tag $tag:literal $(= $default:expr)?) => {
        if $form.has($versions) && $crate::codec::message::differ(&$it.$field, &message!(@default $($default)?)) {
            $writer.tagged($tag, |side| $crate::codec::wire::Wire::write(&$it.$field, side));
        }
    };

    (@least $form:ident $type:ty, [$versions:expr] tag $tag:literal) => { 0 };
    (@least $form:ident $type:ty, [$versions:expr]) => {
        if $form.has($versions) { <$type as $crate::codec::wire::Wire>::least_bytes($form) } else { 0 }
    };

    (@sample $it:ident $dice:ident $form:ident $field:ident [$versions:expr]) => {
        if $form.has($versions) {
            $it.$field = $crate::codec::wire::Wire::sample($dice, $form);
        }
    };
    (@sample $it:ident $dice:ident $form:ident $field:ident [$versions:expr] null [$null:expr]) => {
        message!(@sample $it $dice $form $field [$versions]);
        if $form.has($versions) && !$form.has($null) && $crate::codec::wire::Wire::is_null(&$it.$field) {
            $it.$field = Some(Default::default());
        }
    };
}
pub(crate) use message;

/// Whether a tagged field has another value than its default, and so must be sent.
pub fn differ<T: PartialEq>(value: &T, default: &T) -> bool {
    value != default
}
