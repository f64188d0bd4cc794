//! Things by number: a place is used again, a number of something that is gone finds nothing. PURE.

/// Which thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key {
    index: u32,
    life: u32,
}

/// Places for things.
pub(super) struct Arena<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Arena<T> {
    pub(super) fn insert(&mut self, thing: T) -> Key {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push((0, None));
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let (life, place) = &mut self.places[index as usize];
        *place = Some(thing);
        Key { index, life: *life }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let (life, place) = self.places.get(key.index as usize)?;
        place.as_ref().filter(|_| *life == key.life)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (life, place) = self.places.get_mut(key.index as usize)?;
        place.as_mut().filter(|_| *life == key.life)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let (life, place) = self.places.get_mut(key.index as usize)?;
        let thing = if *life == key.life { place.take() } else { None }?;
        *life = life.wrapping_add(1);
        self.free.push(key.index);
        Some(thing)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.places).filter_map(|(index, (life, place))| {
            let key = Key { index, life: *life };
            place.as_ref().map(|thing| (key, thing))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_found_again() {
        let mut arena = Arena::default();
        let (a, b) = (arena.insert("a"), arena.insert("b"));
        assert_eq!(arena.remove(a), Some("a"));
        let c = arena.insert("c");
        assert_eq!((arena.get(a), arena.get(c)), (None, Some(&"c")));
        assert_eq!(arena.remove(a), None);
        if let Some(b) = arena.get_mut(b) {
            *b = "d";
        }
        assert_eq!(arena.iter().map(|(_, it)| *it).collect::<Vec<_>>(), ["c", "d"]);
    }
}
