//! A pickle of tensors, and of nothing else: the instructions that `torch.save` writes for state dicts and training
//! checkpoints, on values that can't act. A pickle may call any function of Python; here the few that make tensors and
//! dictionaries are known by name, and a file that wants another is refused with that name.
//!
//! Lists, dictionaries and tuples lie in tables and are named by their place, so that one that holds itself is no
//! trouble, and a deep one is dropped without recursion. Memory is bounded by the length of the pickle's texts and by
//! the number of values that it may make.

use std::collections::HashMap;
use std::rc::Rc;

/// Dimensions of a tensor at most.
const DIMENSIONS_MAX: usize = 16;

/// Values that a pickle makes at most; 10,000 tensors with an optimiser's state are 1.6 million.
const VALUES_MAX: usize = 2_000_000;

/// Place of the one empty tuple: a pickle may name it once a byte.
const EMPTY: usize = 0;

/// Why a pickle is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    /// It wants to call something.
    #[error("it asks Python for `{0}`, which makes no tensor: nothing of the file is run here")]
    Global(String),
    /// An instruction that state dicts do not need.
    #[error("its pickle has the instruction {opcode:#04x} at byte {at}, which no state dict needs")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Where it stands.
        at: usize,
    },
    /// It would fill the memory.
    #[error(
        "its pickle makes more than {VALUES_MAX} values, and weights need a few dozen a tensor; with Python: `torch.save(model.state_dict(), PATH)` saves the weights alone"
    )]
    TooMuch,
    /// It makes no sense.
    #[error("its pickle is damaged at byte {at}: {what}")]
    Damaged {
        /// Where it was read.
        at: usize,
        /// What does not hold.
        what: &'static str,
    },
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `None`, a flag or a float: read, and of no use here.
    Plain,
    Int(i64),
    Text(Rc<str>),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Call(Call),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

/// What a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(&'static str),
}

/// Names that are known, and what they stand for.
const KNOWN: [(&str, Call); 13] = [
    ("collections.OrderedDict", Call::OrderedDict),
    ("torch._utils._rebuild_tensor_v2", Call::RebuildTensor),
    ("torch._utils._rebuild_parameter", Call::RebuildParameter),
    ("torch.FloatStorage", Call::Storage("F32")),
    ("torch.HalfStorage", Call::Storage("F16")),
    ("torch.BFloat16Storage", Call::Storage("BF16")),
    ("torch.DoubleStorage", Call::Storage("F64")),
    ("torch.LongStorage", Call::Storage("I64")),
    ("torch.IntStorage", Call::Storage("I32")),
    ("torch.ShortStorage", Call::Storage("I16")),
    ("torch.CharStorage", Call::Storage("I8")),
    ("torch.ByteStorage", Call::Storage("U8")),
    ("torch.BoolStorage", Call::Storage("BOOL")),
];

/// Numbers that tensors share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Name of the member that holds them.
    pub(super) key: Rc<str>,
    /// Type, by its name in safetensors.
    pub(super) dtype: &'static str,
}

/// A tensor: a view of a storage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Rc<Storage>,
    /// First number in the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// In numbers.
    pub(super) strides: Vec<u64>,
}

/// Everything that a pickle made.
#[derive(Debug, Default)]
pub(super) struct Heap {
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Heap {
    /// The entries of a dictionary, in the order they were set; `None` for any other value.
    pub(super) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(place) => Some(&self.dicts[*place]),
            _ => None,
        }
    }

    fn sequence(&mut self, values: Vec<Value>) -> usize {
        self.sequences.push(values);
        self.sequences.len() - 1
    }

    fn new_dict(&mut self) -> Value {
        self.dicts.push(Vec::new());
        Value::Dict(self.dicts.len() - 1)
    }
}

/// Reads a pickle: what it made, and the value it ends with.
pub(super) fn read(bytes: &[u8]) -> Result<(Heap, Value), PickleError> {
    let heap = Heap { sequences: vec![Vec::new()], ..Heap::default() };
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), heap, made: 0 };
    loop {
        if let Some(value) = machine.step()? {
            return Ok((machine.heap, value));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    heap: Heap,
    made: usize,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; gives the value of the last one.
    fn step(&mut self) -> Result<Option<Value>, PickleError> {
        let at = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => drop(self.take(1)?), // PROTO
            0x95 => drop(self.take(8)?), // FRAME
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'N' | 0x88 | 0x89 => self.push(Value::Plain)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Plain)?;
            }
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let number = self.take(4)?.try_into().map(i32::from_le_bytes).unwrap_or_default();
                self.push(Value::Int(number.into()))?;
            }
            0x8a => self.long()?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b']' => self.push_list()?,
            b'}' => {
                let dict = self.heap.new_dict();
                self.push(dict)?;
            }
            b')' => self.tuple(Vec::new())?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let values = self.since_mark()?;
                self.tuple(values)?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.since_mark()?;
                self.append(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let values = self.since_mark()?;
                self.set(values)?;
            }
            b'q' => {
                let place = self.number(1)?;
                self.put(place)?;
            }
            b'r' => {
                let place = self.number(4)?;
                self.put(place)?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'h' => {
                let place = self.number(1)?;
                self.get(place)?;
            }
            b'j' => {
                let place = self.number(4)?;
                self.get(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.global(&module, &name)?;
            }
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => {
                // What an OrderedDict has beside its entries: `_metadata` of state dicts.
                self.pop()?;
                if !matches!(self.stack.last(), Some(Value::Dict(_))) {
                    return Err(self.damaged("a state is set on what is no dictionary"));
                }
            }
            opcode => return Err(PickleError::Opcode { opcode, at }),
        }
        Ok(None)
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { at: self.at, what }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], PickleError> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.damaged("it is cut off"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn push(&mut self, value: Value) -> Result<(), PickleError> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    /// Each value, mark and entry of the memo, whether it is kept or not.
    fn count(&mut self) -> Result<(), PickleError> {
        self.made += 1;
        if self.made > VALUES_MAX { Err(PickleError::TooMuch) } else { Ok(()) }
    }

    /// A little-endian number without a sign.
    fn number(&mut self, bytes: u64) -> Result<u64, PickleError> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn int(&mut self, bytes: u64) -> Result<(), PickleError> {
        let number = self.number(bytes)?.cast_signed();
        self.push(Value::Int(number))
    }

    /// A number of any length. Those of more than 64 bits (a random seed, say) count for nothing here.
    fn long(&mut self) -> Result<(), PickleError> {
        let count = self.number(1)?;
        let bytes = self.take(count)?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        self.push(match whole.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(whole))
            }
            None => Value::Plain,
        })
    }

    fn text(&mut self, length_bytes: u64) -> Result<(), PickleError> {
        let length = self.number(length_bytes)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| self.damaged("a text is no UTF-8"))?;
        self.push(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.damaged("it is cut off"))?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.damaged("a value is missing"));
        }
        Ok(self.stack.pop().expect("looked"))
    }

    fn pop_text(&mut self) -> Result<Rc<str>, PickleError> {
        match self.pop()? {
            Value::Text(text) => Ok(text),
            _ => Err(self.damaged("a name is no text")),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn push_list(&mut self) -> Result<(), PickleError> {
        let place = self.heap.sequence(Vec::new());
        self.push(Value::List(place))
    }

    fn tuple(&mut self, values: Vec<Value>) -> Result<(), PickleError> {
        let place = if values.is_empty() { EMPTY } else { self.heap.sequence(values) };
        self.push(Value::Tuple(place))
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), PickleError> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.pop()?);
        }
        values.reverse();
        self.tuple(values)
    }

    fn append(&mut self, values: Vec<Value>) -> Result<(), PickleError> {
        let Some(Value::List(place)) = self.stack.last() else {
            return Err(self.damaged("something is appended to what is no list"));
        };
        self.heap.sequences[*place].extend(values);
        Ok(())
    }

    fn set(&mut self, values: Vec<Value>) -> Result<(), PickleError> {
        let Some(Value::Dict(place)) = self.stack.last() else {
            return Err(self.damaged("an entry is set in what is no dictionary"));
        };
        let place = *place;
        let mut values = values.into_iter();
        while let Some(key) = values.next() {
            let value = values.next().ok_or_else(|| self.damaged("a key has no value"))?;
            self.heap.dicts[place].push((key, value));
        }
        Ok(())
    }

    fn put(&mut self, place: u64) -> Result<(), PickleError> {
        let value = self.stack.last().cloned().ok_or_else(|| self.damaged("a value is missing"))?;
        self.count()?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn get(&mut self, place: u64) -> Result<(), PickleError> {
        let value = self.memo.get(&place).cloned().ok_or_else(|| self.damaged("the memo has no such value"))?;
        self.push(value)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let full = format!("{module}.{name}");
        let known = KNOWN.iter().find(|(known, _)| *known == full);
        let (_, call) = known.ok_or(PickleError::Global(full))?;
        self.push(Value::Call(*call))
    }

    /// `("storage", type, key, device, count)`: numbers that lie in a member of their own.
    fn persistent(&mut self) -> Result<(), PickleError> {
        let found = self.pop()?;
        let values = self.values(&found)?;
        let [Value::Text(kind), Value::Call(Call::Storage(dtype)), Value::Text(key), Value::Text(_), Value::Int(_)] =
            values
        else {
            return Err(self.damaged("a storage is none"));
        };
        if &**kind != "storage" {
            return Err(self.damaged("a storage is none"));
        }
        let storage = Storage { key: Rc::clone(key), dtype };
        self.push(Value::Storage(Rc::new(storage)))
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, call) = (self.pop()?, self.pop()?);
        let made = match (call, self.values(&arguments)?) {
            (Value::Call(Call::OrderedDict), []) => self.heap.new_dict(),
            (Value::Call(Call::RebuildTensor), [Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                let tensor = Tensor {
                    storage: Rc::clone(storage),
                    offset: self.size(*offset)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                if tensor.shape.len() != tensor.strides.len() {
                    return Err(self.damaged("a tensor's shape and strides differ in length"));
                }
                Value::Tensor(Rc::new(tensor))
            }
            (Value::Call(Call::RebuildParameter), [Value::Tensor(tensor), ..]) => Value::Tensor(Rc::clone(tensor)),
            _ => return Err(self.damaged("a call with other arguments than tensors need")),
        };
        self.push(made)
    }

    fn values(&self, sequence: &Value) -> Result<&[Value], PickleError> {
        match sequence {
            Value::Tuple(place) | Value::List(place) => Ok(&self.heap.sequences[*place]),
            _ => Err(self.damaged("a sequence is none")),
        }
    }

    fn size(&self, number: i64) -> Result<u64, PickleError> {
        u64::try_from(number).map_err(|_| self.damaged("a size is negative"))
    }

    fn sizes(&self, sequence: &Value) -> Result<Vec<u64>, PickleError> {
        let size = |value: &Value| match value {
            Value::Int(number) => self.size(*number),
            _ => Err(self.damaged("a size is no number")),
        };
        let values = self.values(sequence)?;
        if values.len() > DIMENSIONS_MAX {
            return Err(self.damaged("a tensor has too many dimensions"));
        }
        values.iter().map(size).collect()
    }
}
