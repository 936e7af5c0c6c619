"""A benchmark of kernel-size learners with known answers: data whose evidence has a known extent, made from a seed.

Most claims about learned kernel sizes cannot be checked, because nobody knows which sizes a data set wants. Here it is
known. A *lag* task of scale d can be solved by a receptive field of d + 1 pixels and by no smaller one; both halves
are proven in `tasks`, and networks of fixed sizes, the oracle, confirm them. A *texture* task carries evidence at
every size and is judged by the oracle's accuracies alone.

A method starts at a given size, below, at or above the answer; learns; and is asked for its receptive field (with two
layers s1 + s2 - 1) and its test accuracy. It *reaches* the answer if the field is large enough and the accuracy within
two points of the oracle's. Its *excess* is the field beyond the answer, which means something only where size has a
price. As methods name sizes differently, they are compared by the effective size of the trained kernels: the smallest
centred square with 95 % of the squared weights.

`tasks`: the data. `networks`: the small networks, plain and with kernels of their own. `oracle`: training, and the
accuracy of fixed sizes. `learners`: the methods, and how others are plugged in.
"""
