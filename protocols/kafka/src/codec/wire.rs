//! The types that fields may have.
//!
//! Source: Apache Kafka protocol guide, "Protocol Primitive Types"; KIP-482 for the compact ones.

use bytes::Bytes;
use uuid::Uuid;

#[cfg(test)]
use crate::codec::dice::Dice;
use crate::codec::form::Form;
use crate::codec::reader::{Malformed, Reader};
use crate::codec::text::Str;
use crate::codec::writer::Writer;

/// What can stand in a message.
pub trait Wire: Sized {
    fn read(reader: &mut Reader) -> Result<Self, Malformed>;
    fn write(&self, writer: &mut Writer);

    /// As `write`, but where null cannot be said its place is taken by the empty value.
    fn write_present(&self, writer: &mut Writer) {
        self.write(writer);
    }

    fn is_null(&self) -> bool {
        false
    }

    /// Fewest bytes that a value takes in `form`; bounds what a count may claim.
    fn least_bytes(form: Form) -> usize;

    /// A value made up for tests, with the fields of `form` and no others.
    #[cfg(test)]
    fn sample(dice: &mut Dice, form: Form) -> Self;
}

/// What can be null; `Option` of it is the field's type.
pub trait Nullable: Wire + Default {
    fn read_nullable(reader: &mut Reader) -> Result<Option<Self>, Malformed>;
    fn write_nullable(value: Option<&Self>, writer: &mut Writer);
    fn least_nullable_bytes(form: Form) -> usize;
}

/// Whole record batches of a fetch response, spliced into it as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub chunks: Vec<Bytes>,
}

macro_rules! number {
    ($($number:ty)*) => { $(
        impl Wire for $number {
            fn read(reader: &mut Reader) -> Result<Self, Malformed> {
                reader.fixed().map(<$number>::from_be_bytes)
            }
            fn write(&self, writer: &mut Writer) {
                writer.put(&self.to_be_bytes());
            }
            fn least_bytes(_: Form) -> usize {
                size_of::<$number>()
            }
            #[cfg(test)]
            fn sample(dice: &mut Dice, _: Form) -> Self {
                dice.roll() as $number
            }
        }
    )* };
}
number!(i8 i16 i32 i64);

impl Wire for bool {
    fn read(reader: &mut Reader) -> Result<bool, Malformed> {
        reader.fixed::<1>().map(|[byte]| byte != 0)
    }
    fn write(&self, writer: &mut Writer) {
        writer.put(&[u8::from(*self)]);
    }
    fn least_bytes(_: Form) -> usize {
        1
    }
    #[cfg(test)]
    fn sample(dice: &mut Dice, _: Form) -> bool {
        dice.below(2) == 1
    }
}

impl Wire for Uuid {
    fn read(reader: &mut Reader) -> Result<Uuid, Malformed> {
        reader.fixed().map(Uuid::from_bytes)
    }
    fn write(&self, writer: &mut Writer) {
        writer.put(self.as_bytes());
    }
    fn least_bytes(_: Form) -> usize {
        16
    }
    #[cfg(test)]
    fn sample(dice: &mut Dice, _: Form) -> Uuid {
        Uuid::from_u64_pair(dice.roll(), dice.roll())
    }
}

/// `Wire` by way of `Nullable`, for types whose null is a length.
macro_rules! with_length {
    ($type:ty, $(each $element:ident,)? least $least:expr, $sample:expr) => {
        impl $(<$element: Wire>)? Wire for $type {
            fn read(reader: &mut Reader) -> Result<Self, Malformed> {
                let value = Self::read_nullable(reader)?;
                value.ok_or_else(|| reader.malformed("null where a value must be"))
            }
            fn write(&self, writer: &mut Writer) {
                Self::write_nullable(Some(self), writer);
            }
            fn least_bytes(form: Form) -> usize {
                if form.flexible { 1 } else { $least }
            }
            #[cfg(test)]
            fn sample(dice: &mut Dice, form: Form) -> Self {
                let sample: fn(&mut Dice, Form) -> Self = $sample;
                sample(dice, form)
            }
        }
    };
}
with_length!(Str, least 2, |dice, _| Str::from(dice.text()));
with_length!(Bytes, least 4, |dice, _| dice.bytes());
with_length!(Records, least 4, |dice, _| Records { chunks: vec![dice.bytes()] });
with_length!(Vec<T>, each T, least 4, |dice, form| (0..dice.below(4)).map(|_| T::sample(dice, form)).collect());

impl Nullable for Str {
    fn read_nullable(reader: &mut Reader) -> Result<Option<Str>, Malformed> {
        let Some(length) = reader.short_length()? else { return Ok(None) };
        let bytes = reader.slice(length)?;
        Str::parse(bytes).map(Some).ok_or_else(|| reader.malformed("text that is not UTF-8"))
    }
    fn write_nullable(value: Option<&Str>, writer: &mut Writer) {
        let Some(text) = value else { return writer.short_length(None) };
        // Text that is too long for its length field is cut: it can only be a message to a human.
        let bytes_max = if writer.form().flexible { text.len() } else { 0x7fff };
        let text = &text[..text.floor_char_boundary(bytes_max)];
        writer.short_length(Some(text.len()));
        writer.put(text.as_bytes());
    }
    fn least_nullable_bytes(form: Form) -> usize {
        Str::least_bytes(form)
    }
}

impl Nullable for Bytes {
    fn read_nullable(reader: &mut Reader) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = reader.long_length()? else { return Ok(None) };
        reader.slice(length).map(Some)
    }
    fn write_nullable(value: Option<&Bytes>, writer: &mut Writer) {
        writer.long_length(value.map(Bytes::len));
        if let Some(bytes) = value {
            writer.splice(bytes);
        }
    }
    fn least_nullable_bytes(form: Form) -> usize {
        Bytes::least_bytes(form)
    }
}

impl Nullable for Records {
    fn read_nullable(reader: &mut Reader) -> Result<Option<Records>, Malformed> {
        let bytes = Bytes::read_nullable(reader)?;
        Ok(bytes.map(|bytes| Records { chunks: vec![bytes] }))
    }
    fn write_nullable(value: Option<&Records>, writer: &mut Writer) {
        writer.long_length(value.map(|records| records.chunks.iter().map(Bytes::len).sum()));
        for chunk in value.into_iter().flat_map(|records| &records.chunks) {
            writer.splice(chunk);
        }
    }
    fn least_nullable_bytes(form: Form) -> usize {
        Records::least_bytes(form)
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn read_nullable(reader: &mut Reader) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = reader.long_length()? else { return Ok(None) };
        let mut elements = reader.room(count, T::least_bytes(reader.form()))?;
        for _ in 0..count {
            elements.push(T::read(reader)?);
        }
        Ok(Some(elements))
    }
    fn write_nullable(value: Option<&Vec<T>>, writer: &mut Writer) {
        writer.long_length(value.map(Vec::len));
        for element in value.into_iter().flatten() {
            element.write(writer);
        }
    }
    fn least_nullable_bytes(form: Form) -> usize {
        Vec::<T>::least_bytes(form)
    }
}

impl<T: Nullable> Wire for Option<T> {
    fn read(reader: &mut Reader) -> Result<Option<T>, Malformed> {
        T::read_nullable(reader)
    }
    fn write(&self, writer: &mut Writer) {
        T::write_nullable(self.as_ref(), writer);
    }
    fn write_present(&self, writer: &mut Writer) {
        match self {
            // Through `write`: a struct that cannot be null has no marker.
            Some(value) => value.write(writer),
            None => T::default().write(writer),
        }
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
    fn least_bytes(form: Form) -> usize {
        T::least_nullable_bytes(form)
    }
    #[cfg(test)]
    fn sample(dice: &mut Dice, form: Form) -> Option<T> {
        if dice.below(3) == 0 { None } else { Some(T::sample(dice, form)) }
    }
}
