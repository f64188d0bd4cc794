//! DNS messages: what is asked, and answers. PURE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// How long an app may keep the address of a service. It changes only when the app asks for 65,535 others.
const SERVICE_TTL: u32 = 30;

/// Length of a message's header.
const HEADER: usize = 12;

/// A query, as it came.
#[derive(Clone, Debug)]
pub(super) struct Query {
    message: Vec<u8>,
    /// What is asked for: lower case, no final dot.
    pub name: Arc<str>,
    /// Of which type.
    pub kind: Kind,
}

/// What is wanted of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Its IPv4 addresses.
    A,
    /// Its IPv6 addresses.
    Aaaa,
    /// Something else.
    Other,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// There is no such name.
    Missing,
    /// The policy does not allow it.
    Refused,
    /// No name server has answered.
    Server,
}

/// What a name server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The addresses of the name that was asked for, through aliases too, with how long they hold.
    pub addresses: Vec<(IpAddr, Duration)>,
}

impl Query {
    /// Reads a query. `Err` is what to answer instead, if anything: only questions of one name are understood.
    pub(super) fn read(message: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let packet = Packet::parse(message).map_err(|_| complaint(message, RCODE::FormatError))?;
        if packet.has_flags(PacketFlag::RESPONSE) {
            return Err(None);
        }
        let [question] = &packet.questions[..] else {
            return Err(complaint(message, RCODE::FormatError));
        };
        if packet.opcode() != OPCODE::StandardQuery {
            return Err(complaint(message, RCODE::NotImplemented));
        }
        Ok(Self {
            name: question.qname.to_string().to_ascii_lowercase().into(),
            kind: match question.qtype {
                QTYPE::TYPE(TYPE::A) => Kind::A,
                QTYPE::TYPE(TYPE::AAAA) => Kind::Aaaa,
                _ => Kind::Other,
            },
            message: message.to_vec(),
        })
    }

    /// The same query under another number, to send it on.
    pub(super) fn with_id(&self, id: u16) -> Vec<u8> {
        with_id(self.message.clone(), id)
    }

    /// A name server's answer under the number of this query.
    pub(super) fn give_back(&self, answer: Vec<u8>) -> Vec<u8> {
        let id = self.message.first_chunk().copied().map_or(0, u16::from_be_bytes);
        with_id(answer, id)
    }

    /// The address of a service; no address of another family, and nothing of other types.
    pub(super) fn service(&self, address: Ipv4Addr) -> Option<Vec<u8>> {
        self.reply(RCODE::NoError, (self.kind == Kind::A).then_some(address))
    }

    /// That there is no answer.
    pub(super) fn fail(&self, failure: Failure) -> Option<Vec<u8>> {
        let code = match failure {
            Failure::Missing => RCODE::NameError,
            Failure::Refused => RCODE::Refused,
            Failure::Server => RCODE::ServerFailure,
        };
        self.reply(code, None)
    }

    fn reply(&self, code: RCODE, address: Option<Ipv4Addr>) -> Option<Vec<u8>> {
        let query = Packet::parse(&self.message).ok()?;
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        *reply.rcode_mut() = code;
        reply.questions.clone_from(&query.questions);
        if let Some(address) = address {
            let data = RData::A(A {
                address: address.into(),
            });
            let name = query.questions.first()?.qname.clone();
            reply
                .answers
                .push(ResourceRecord::new(name, CLASS::IN, SERVICE_TTL, data));
        }
        reply.build_bytes_vec_compressed().ok()
    }

    /// Reads the answer to this query sent under `id`; `None` when it is none.
    pub(super) fn answered(&self, id: u16, answer: &[u8]) -> Option<Found> {
        let answer = Packet::parse(answer).ok()?;
        let [question] = &answer.questions[..] else { return None };
        let own = Packet::parse(&self.message).ok()?;
        let asked = own.questions.first()?;
        let fits = answer.id() == id
            && answer.has_flags(PacketFlag::RESPONSE)
            && question.qname == asked.qname
            && question.qtype == asked.qtype;
        if !fits {
            return None;
        }
        // Aliases in any order, each followed once; the shortest life on the way counts.
        let mut name = &asked.qname;
        let mut life = u32::MAX;
        for _ in 0..answer.answers.len() {
            let alias = answer.answers.iter().find_map(|record| match &record.rdata {
                RData::CNAME(alias) if record.name == *name => Some((&alias.0, record.ttl)),
                _ => None,
            });
            let Some((target, ttl)) = alias else { break };
            (name, life) = (target, life.min(ttl));
        }
        let addresses = answer.answers.iter().filter(|record| record.name == *name);
        let addresses = addresses.filter_map(|record| {
            let address = match &record.rdata {
                RData::A(a) => IpAddr::V4(Ipv4Addr::from(a.address)),
                RData::AAAA(aaaa) => IpAddr::V6(Ipv6Addr::from(aaaa.address)),
                _ => return None,
            };
            Some((address, Duration::from_secs(life.min(record.ttl).into())))
        });
        Some(Found {
            addresses: addresses.collect(),
        })
    }

    /// Every address in an answer, of whatever name.
    pub(super) fn addresses(answer: &[u8]) -> Vec<IpAddr> {
        let Ok(answer) = Packet::parse(answer) else {
            return Vec::new();
        };
        let records = answer.answers.iter().chain(&answer.additional_records);
        records
            .filter_map(|record| match &record.rdata {
                RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
                RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
                _ => None,
            })
            .collect()
    }
}

fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(first) = message.first_chunk_mut() {
        *first = id.to_be_bytes();
    }
    message
}

/// An answer to something that is no proper question: the header alone.
fn complaint(message: &[u8], code: RCODE) -> Option<Vec<u8>> {
    const RESPONSE: u8 = 0x80;
    if message.len() < HEADER || message[2] & RESPONSE != 0 {
        return None;
    }
    let mut reply = Packet::new_reply(u16::from_be_bytes([message[0], message[1]]));
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().ok()
}

#[cfg(test)]
mod tests;
