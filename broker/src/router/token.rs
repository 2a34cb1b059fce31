//! What a filter stands for: the names of those who asked.

/// The name of a subscription or capture, given by who subscribes; one token may stand at many filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// What is to be done with a subject that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// Send it to a connection.
    Live,
    /// Store it in a stream.
    Capture,
}

impl Token {
    /// Panics unless `id` is below 2^63.
    pub fn live(id: u64) -> Token {
        assert!(id >> 63 == 0, "ids of tokens have 63 bits");
        Token(id << 1)
    }

    /// Panics unless `id` is below 2^63.
    pub fn capture(id: u64) -> Token {
        assert!(id >> 63 == 0, "ids of tokens have 63 bits");
        Token(id << 1 | 1)
    }

    pub fn kind(self) -> TokenKind {
        if self.0 & 1 == 0 { TokenKind::Live } else { TokenKind::Capture }
    }

    pub fn id(self) -> u64 {
        self.0 >> 1
    }
}

/// The tokens at one node. Most nodes have none or one, so those cost no allocation.
#[derive(Default)]
pub enum Tokens {
    #[default]
    None,
    One(Token),
    Many(Box<Lists>),
}

/// Both in order.
#[derive(Default)]
pub struct Lists {
    /// Each once: of the filter that is written as the node is.
    plain: Vec<Token>,
    /// Of filters that are written otherwise and match the same: a token once for each of them.
    respelled: Vec<Token>,
}

impl Tokens {
    pub fn is_empty(&self) -> bool {
        matches!(self, Tokens::None)
    }

    pub fn slices(&self) -> (&[Token], &[Token]) {
        match self {
            Tokens::None => (&[], &[]),
            Tokens::One(token) => (std::slice::from_ref(token), &[]),
            Tokens::Many(lists) => (&lists.plain, &lists.respelled),
        }
    }

    /// Returns whether it was added: a plain token is there once.
    pub fn add(&mut self, token: Token, plain: bool) -> bool {
        match self {
            Tokens::None if plain => {
                *self = Tokens::One(token);
                return true;
            }
            Tokens::None => *self = Tokens::Many(Box::default()),
            Tokens::One(same) if plain && *same == token => return false,
            Tokens::One(first) => *self = Tokens::Many(Box::new(Lists { plain: vec![*first], respelled: Vec::new() })),
            Tokens::Many(_) => {}
        }
        let Tokens::Many(lists) = self else { return false };
        let list = if plain { &mut lists.plain } else { &mut lists.respelled };
        let place = list.binary_search(&token);
        if plain && place.is_ok() {
            return false;
        }
        list.insert(place.unwrap_or_else(|place| place), token);
        true
    }

    /// Returns whether it was there.
    pub fn remove(&mut self, token: Token, plain: bool) -> bool {
        let lists = match self {
            Tokens::One(one) if plain && *one == token => {
                *self = Tokens::None;
                return true;
            }
            Tokens::Many(lists) => lists,
            Tokens::None | Tokens::One(_) => return false,
        };
        let list = if plain { &mut lists.plain } else { &mut lists.respelled };
        let Ok(place) = list.binary_search(&token) else { return false };
        list.remove(place);
        if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
        match (&lists.plain[..], &lists.respelled[..]) {
            ([], []) => *self = Tokens::None,
            ([one], []) => *self = Tokens::One(*one),
            _ => {}
        }
        true
    }

    /// Bytes allocated.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Tokens::None | Tokens::One(_) => 0,
            Tokens::Many(lists) => size_of::<Lists>() + (lists.plain.capacity() + lists.respelled.capacity()) * size_of::<Token>(),
        }
    }
}
