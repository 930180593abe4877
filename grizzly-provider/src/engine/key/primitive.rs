//! Fixed-width values to and from bytes that sort like them.

use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};

/// An Arrow type whose ascending key is `WIDTH` bytes.
pub(super) trait FixedKey: ArrowPrimitiveType {
    const WIDTH: usize = size_of::<Self::Native>();
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + for<'a> TryFrom<&'a [u8]>;

    fn to_key(value: Self::Native) -> Self::Bytes;
    fn from_key(bytes: Self::Bytes) -> Self::Native;
}

macro_rules! unsigned {
    ($($arrow:ty, $native:ty);*) => {$(
        impl FixedKey for $arrow {
            type Bytes = [u8; size_of::<$native>()];

            #[inline]
            fn to_key(value: $native) -> Self::Bytes {
                value.to_be_bytes()
            }

            #[inline]
            fn from_key(bytes: Self::Bytes) -> $native {
                <$native>::from_be_bytes(bytes)
            }
        }
    )*};
}

macro_rules! signed {
    ($native:ty: $($arrow:ty),*) => {$(
        impl FixedKey for $arrow {
            type Bytes = [u8; size_of::<$native>()];

            #[inline]
            fn to_key(value: $native) -> Self::Bytes {
                (value ^ <$native>::MIN).to_be_bytes()
            }

            #[inline]
            fn from_key(bytes: Self::Bytes) -> $native {
                <$native>::from_be_bytes(bytes) ^ <$native>::MIN
            }
        }
    )*};
}

macro_rules! float {
    ($($arrow:ty, $bits:ty, $nan:literal);*) => {$(
        impl FixedKey for $arrow {
            type Bytes = [u8; size_of::<$bits>()];

            #[inline]
            fn to_key(value: Self::Native) -> Self::Bytes {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let mut bits = value.to_bits();
                if value.is_nan() {
                    bits = $nan;
                } else if bits == SIGN {
                    bits = 0;
                }
                (if bits & SIGN == 0 { bits | SIGN } else { !bits }).to_be_bytes()
            }

            #[inline]
            fn from_key(bytes: Self::Bytes) -> Self::Native {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let bits = <$bits>::from_be_bytes(bytes);
                Self::Native::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })
            }
        }
    )*};
}

unsigned!(UInt8Type, u8; UInt16Type, u16; UInt32Type, u32; UInt64Type, u64);
signed!(i8: Int8Type);
signed!(i16: Int16Type);
signed!(i32: Int32Type, Date32Type, Time32SecondType, Time32MillisecondType, Decimal32Type);
signed!(i64: Int64Type, Date64Type, Time64MicrosecondType, Time64NanosecondType, Decimal64Type);
signed!(i64: TimestampSecondType, TimestampMillisecondType, TimestampMicrosecondType, TimestampNanosecondType);
signed!(i64: DurationSecondType, DurationMillisecondType, DurationMicrosecondType, DurationNanosecondType);
signed!(i128: Decimal128Type);
float!(
    Float16Type, u16, 0x7E00;
    Float32Type, u32, 0x7FC0_0000;
    Float64Type, u64, 0x7FF8_0000_0000_0000
);

impl FixedKey for Decimal256Type {
    type Bytes = [u8; 32];

    #[inline]
    fn to_key(value: i256) -> [u8; 32] {
        let mut bytes = value.to_be_bytes();
        bytes[0] ^= 0x80;
        bytes
    }

    #[inline]
    fn from_key(mut bytes: [u8; 32]) -> i256 {
        bytes[0] ^= 0x80;
        i256::from_be_bytes(bytes)
    }
}

/// Calls a macro with the Arrow primitive type of a [`arrow::datatypes::DataType`] that is a [`FixedKey`];
/// evaluates `$other` for every other type.
macro_rules! with_primitive {
    ($data_type:expr, $call:ident, $other:expr) => {{
        use arrow::datatypes::{
            DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
            DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
            Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
            Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
            TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
            UInt64Type,
        };
        match $data_type {
            DataType::Int8 => $call!(Int8Type),
            DataType::Int16 => $call!(Int16Type),
            DataType::Int32 => $call!(Int32Type),
            DataType::Int64 => $call!(Int64Type),
            DataType::UInt8 => $call!(UInt8Type),
            DataType::UInt16 => $call!(UInt16Type),
            DataType::UInt32 => $call!(UInt32Type),
            DataType::UInt64 => $call!(UInt64Type),
            DataType::Float16 => $call!(Float16Type),
            DataType::Float32 => $call!(Float32Type),
            DataType::Float64 => $call!(Float64Type),
            DataType::Date32 => $call!(Date32Type),
            DataType::Date64 => $call!(Date64Type),
            DataType::Time32(TimeUnit::Second) => $call!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => $call!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => $call!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => $call!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $call!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $call!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $call!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $call!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => $call!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $call!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $call!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $call!(DurationNanosecondType),
            DataType::Decimal32(_, _) => $call!(Decimal32Type),
            DataType::Decimal64(_, _) => $call!(Decimal64Type),
            DataType::Decimal128(_, _) => $call!(Decimal128Type),
            DataType::Decimal256(_, _) => $call!(Decimal256Type),
            _ => $other,
        }
    }};
}

pub(super) use with_primitive;
